"""Prints the tables of README.md, from the configs and scores of the full trainings.

    python -m projects.latency_space.table output/latency_space

All networks are timed as wholes, in alternating rounds. The interval of a difference is the 95%
interval by Welch's t-test. One sample is a search (the mean over the full trainings of its winner)
or, for a hand-made network, a training.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fbnetv3.arch import count_cost
from fbnetv3.arch.spec import Arch
from fbnetv3.config import get_cfg
from fbnetv3.config.archs import arch_from_config
from projects.bccd_search.table import difference
from projects.cifar10_jointnas.trainings import Row, read
from projects.latency_space.hand_made import latencies

SPACES = ("latency_cifar10", "latency_cifar10_mbconv")
"""Configs of the searches, whose winners have names such as ``latency_cifar10_seed0``."""


def final_scores(rows: Sequence[Row]) -> dict[str, list[float]]:
    """Returns the top-1 of the averaged weights after the last epoch, by case, in percent."""
    last: dict[tuple[str, int], Row] = {}
    for row in sorted(rows, key=lambda row: row.epoch):
        last[row.case, row.seed] = row
    scores: dict[str, list[float]] = {}
    for (case, _), row in sorted(last.items()):
        scores.setdefault(case, []).append(row.top1_ema)
    return scores


def arms(scores: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Returns the scores of each arm of the comparison: a searched space or a hand-made network.

    A space has a score for each search, a hand-made network one for each training with the better
    of its learning rates.
    """
    grouped: dict[str, list[float]] = {}
    for case, values in scores.items():
        arm = re.sub(r"_(seed\d+|lr[\d.]+)$", "", case)
        if arm in SPACES:
            grouped.setdefault(arm, []).append(float(np.mean(values)))
        elif arm not in grouped or np.mean(values) > np.mean(grouped[arm]):
            grouped[arm] = list(values)
    return grouped


def arch_of(config: Path) -> Arch:
    """Returns the architecture of a config of a training."""
    cfg = get_cfg()
    cfg.merge_from_file(str(config))
    arch = arch_from_config(cfg)
    assert isinstance(arch, Arch)
    return arch.replace(num_classes=10)


def main(argv: Sequence[str] | None = None) -> None:
    """Prints a row for each network, and the differences between the arms."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder with configs/ and finals.csv")
    parser.add_argument("--rounds", type=int, default=10, help="rounds of the latency measurement")
    args = parser.parse_args(argv)
    scores = final_scores(read(args.folder / "finals.csv"))
    archs = [arch_of(args.folder / "configs" / f"{case}.yaml") for case in scores]
    ms = latencies(archs, args.rounds)
    print("| network | ms | multiply-adds | top-1 of each seed | mean |\n|---|---|---|---|---|")
    for (case, values), arch, time in zip(scores.items(), archs, ms, strict=True):
        macs = f"{count_cost(arch).macs / 1e6:.1f}M"
        each = ", ".join(f"{value:.2f}" for value in values)
        print(f"| {case} | {time:.2f} | {macs} | {each} | {np.mean(values):.2f} |")
    by_arm = arms(scores)
    first = by_arm.pop(SPACES[0], [])
    for arm, values in by_arm.items():
        if min(len(first), len(values)) > 1:
            gap, low, high = difference(first, values)
            print(f"{SPACES[0]} - {arm}: {gap:+.2f} points ({low:+.2f} to {high:+.2f})")


if __name__ == "__main__":
    main()
