"""The weights that an evaluation scores: those of a run, or those that are named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fbnetv3.cli.train import main
from fbnetv3.config import CfgNode, ConfigError
from fbnetv3.training import evaluate, train
from tests.runs import train_steps

Make = Callable[..., CfgNode]
Trained = tuple[Path, dict[str, float]]
Scores = dict[str, float]


@pytest.fixture
def tuned(trained: Trained, tiny: Make, tmp_path: Path) -> tuple[Path, CfgNode, Scores]:
    """A run that started from the weights of another: its folder, config and scores."""
    changes = {
        "OUTPUT_DIR": str(tmp_path / "tuned"),
        "MODEL__WEIGHTS": str(trained[0] / "model.safetensors"),
        "SOLVER__BASE_LR": 0.5,
    }
    scores = train_steps(tiny, 3, **changes)
    return tmp_path / "tuned", tiny(**changes), scores


def _loss(scores: Scores) -> float:
    return scores["val/loss"]


def test_a_fine_tuned_run_is_scored_with_its_own_weights(
    trained: Trained, tuned: tuple[Path, CfgNode, Scores]
) -> None:
    folder, cfg, scores = tuned
    assert _loss(trained[1]) != _loss(scores)
    assert evaluate(cfg) == evaluate(cfg, weights="") == scores
    initial = evaluate(cfg, weights=cfg.MODEL.WEIGHTS)
    assert _loss(initial) == _loss(trained[1])
    for path in folder.glob("checkpoint_*.pt"):
        path.unlink()
    assert _loss(evaluate(cfg)) == scores["val/loss_ema"]  # the exported average
    for path in folder.glob("*.safetensors"):
        path.unlink()
    with pytest.raises(ConfigError, match="nothing to evaluate"):
        evaluate(cfg)


def test_other_weights_than_a_run_started_from_are_scored(
    trained: Trained, tuned: tuple[Path, CfgNode, Scores], tiny: Make
) -> None:
    folder, _, scores = tuned
    exported = str(folder / "model.safetensors")
    assert _loss(evaluate(tiny(OUTPUT_DIR=str(folder), MODEL__WEIGHTS=exported))) == _loss(scores)
    assert _loss(evaluate(tiny(MODEL__WEIGHTS=exported))) == _loss(scores)


@pytest.mark.parametrize("moved", [False, True])
def test_the_config_of_a_run_means_its_weights(
    trained: Trained,
    tuned: tuple[Path, CfgNode, Scores],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    moved: bool,
) -> None:
    folder, cfg, scores = tuned
    if moved:
        folder = Path(shutil.move(folder, tmp_path / "moved"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    command = ["--config-file", str(folder / "config.yaml"), "--eval-only"]
    for more, expected in (([], scores), (["MODEL.WEIGHTS", cfg.MODEL.WEIGHTS], trained[1])):
        main([*command, *more])
        printed = json.loads(capsys.readouterr().out)
        assert printed["val/loss"] == pytest.approx(_loss(expected), abs=1e-4)


def test_a_moved_run_is_resumed(
    tuned: tuple[Path, CfgNode, Scores], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.move(tuned[0], tmp_path / "moved"))
    main(["--config-file", str(folder / "config.yaml"), "--resume", "SOLVER.MAX_ITER", "4"])
    assert (folder / "checkpoint_00000004.pt").is_file()
    assert not tuned[0].exists()


def test_weights_are_scored_where_no_run_has_started(trained: Trained, tiny: Make) -> None:
    weights = str(trained[0] / "model.safetensors")
    cfg = tiny(OUTPUT_DIR=str(trained[0] / "none"), MODEL__WEIGHTS=weights)
    assert _loss(evaluate(cfg)) == _loss(trained[1])


def test_renamed_classes(trained: Trained, tiny: Make, material: Path, tmp_path: Path) -> None:
    paths = {}
    for part in ("train", "test"):
        paths[f"DATASETS__{part.upper()}"] = str(tmp_path / part)
        for digit in range(10):
            shutil.copytree(material / part / str(digit), tmp_path / part / f"digit_{digit}")
    cfg = tiny(**paths)
    with pytest.raises(ConfigError, match="was trained on the classes"):
        train(cfg, resume=True)
    scores = train(cfg, resume=True, ignore_class_names=True)
    assert scores == evaluate(cfg, ignore_class_names=True) == trained[1]
