"""The study of the latency spaces: scaled networks, scores by arm, and its commands."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from fbnetv3.arch import count_cost
from fbnetv3.config import get_cfg
from projects.cifar10_jointnas.trainings import Row, make_parser
from projects.latency_space import hand_made, table

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", hand_made.NAMES)
def test_the_largest_network_within_the_bound_is_written(name: str, tmp_path: Path) -> None:
    archs = hand_made.candidates(name)
    ms = [count_cost(arch).macs / 1e6 for arch in archs]  # as if each MAC took the same time
    chosen = hand_made.largest_within(archs, ms, 2.0)
    assert count_cost(chosen).macs <= 2e6
    assert hand_made.largest_within(archs, ms, 0.0) == archs[ms.index(min(ms))]
    hand_made.write_configs(chosen, name, tmp_path)
    cfg = get_cfg()
    cfg.merge_from_file(str(tmp_path / f"{name}_lr0.1.yaml"))
    assert (0.1, chosen.resolution) == (cfg.SOLVER.BASE_LR, cfg.INPUT.RESOLUTION)
    assert table.arch_of(tmp_path / f"{name}_lr0.1.yaml") == chosen


def test_searches_are_units_and_the_better_learning_rate_counts() -> None:
    scores = {"latency_cifar10_seed0": 50.0, "latency_cifar10_seed1": 52.0}
    scores |= {"efficientnet_b0_lr0.1": 40.0, "efficientnet_b0_lr0.3": 44.0}
    rows = [
        Row(case, "0", seed, epoch, 0.0, top1 + seed - (4 - epoch))
        for case, top1 in scores.items()
        for seed in (0, 1, 2)
        for epoch in (2.0, 4.0)
    ]
    assert table.arms(table.final_scores(rows)) == {
        "latency_cifar10": [51.0, 53.0],
        "efficientnet_b0": [44.0, 45.0, 46.0],
    }


def test_a_dry_run_prints_every_part() -> None:
    env = {
        **os.environ,
        "DRY_RUN": "1",
        "FBNETV3_DATA": "none",
        "OUT": "nowhere",
        "PYTHON": "python",
    }
    script = ROOT / "projects/latency_space/reproduce.sh"
    done = subprocess.run([script], env=env, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    (trainings,) = (line for line in lines if "cifar10_jointnas.trainings" in line)
    parsed = make_parser().parse_args(trainings.split()[3:])
    assert (parsed.seeds, parsed.configs) == ([0, 1, 2], [Path("nowhere/configs/*.yaml")])
    assert sum("jointnas_search.py" in line for line in lines) == 6
    assert lines[0].startswith("python tools/benchmark.py --latency-table nowhere/latency.json")
    assert lines[-1] == "python -m projects.latency_space.table nowhere"
