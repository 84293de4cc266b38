"""A search over the arguments of a user's network, from the command line to a trained winner."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from fbnetv3.cli import train
from tests.cli.search_command import error_line, run_command

pytest.importorskip("detectron2")

CODE = """
from torch import nn

from fbnetv3 import register_network, register_space

@register_network("searched/net")
def net(num_classes, width=8, groups=1, act="relu"):
    act = {"relu": nn.ReLU, "silu": nn.SiLU}[act]
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 2), nn.BatchNorm2d(width), act(),
        nn.Conv2d(width, 2 * width, 3, 2, groups=groups), nn.BatchNorm2d(2 * width), act(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, num_classes))

@register_space("searched_space")
def space():
    arguments = {
        "width": {"range": [4, 16, 4]},
        "groups": {"choices": [1, 2, 3]},
        "act": {"choices": ["relu", "silu"]},
    }
    recipe = {"lr": {"range": [0.01, 0.1], "log": True}}
    return {"name": "mine", "network": "searched/net", "arguments": arguments, "recipe": recipe}
"""
SMALL = [
    "--config-file",
    "model_zoo/search/digits.yaml",
    *("SEARCH.SPACE", "searched_space", "SEARCH.FIX", "[]", "SEARCH.POOL_SIZE", "64"),
    *("SEARCH.CONSTRAINTS", "['macs <= 3e4']", "SEARCH.BATCH_SIZE", "6"),
    *("SEARCH.ITERATIONS", "1", "SEARCH.FINALISTS", "1", "SEARCH.WORKERS", "0"),
    *("SOLVER.MAX_EPOCHS", "1.0", "DATA.TRAIN_LIMIT", "256"),
    *("SEARCH.FINAL", "['SOLVER.MAX_EPOCHS', 1.0]"),
]


@pytest.mark.slow
def test_a_users_network_is_searched_and_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, run = tmp_path / "my_networks.py", tmp_path / "run"
    code.write_text(CODE)
    search = ["--import", str(code), *SMALL, "OUTPUT_DIR", str(run)]
    assert run_command(search) == 0
    out = capsys.readouterr().out
    assert "of the network searched/net" in out
    assert "networks cannot be built or run and are not proposed, such as searched/net?" in out
    scores = [json.loads(p.read_text()) for p in run.glob("candidates/*/result.json")]
    assert len(scores) == 7
    assert not list(run.glob("candidates/*/arch.yaml"))
    costs = json.loads((run / "costs.json").read_text())["costs"]
    assert len(costs) == 24
    assert run_command(search) == 0  # resumes, and has nothing left to train
    assert "resuming after 7 finished trials" in capsys.readouterr().out
    assert run_command(["--import", str(code), "--evolve", str(run), "--macs", "2e4"]) == 0
    assert run_command(["--import", str(code), "--report", str(run)]) == 0
    assert "groups" in (run / "report.html").read_text()
    for name in ("best", "best_macs_0.02M"):
        winner = yaml.safe_load((run / f"{name}.yaml").read_text())
        arch = winner["MODEL"]["ARCH"]
        assert arch.startswith("searched/net?width=")
        assert costs[f"{arch} at 16 px"][0] <= (3e4 if name == "best" else 2e4)
    trained = ["--import", str(code), "--config-file", str(run / "best.yaml")]
    assert train.main([*trained, "OUTPUT_DIR", str(tmp_path / "trained")]) in (None, 0)
    capsys.readouterr()
    text = error_line(capsys, [*search, "SEARCH.LATENCY_TABLE", str(tmp_path / "none.json")])
    assert "SEARCH.LATENCY_TABLE" in text or "none.json" in text
