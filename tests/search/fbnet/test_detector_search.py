"""A whole search over detectors on scenes of digits, and a candidate that is killed and resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("detectron2")

from fbnetv3.cli.search import main
from fbnetv3.config import get_cfg
from fbnetv3.engine.process import runtime_context
from fbnetv3.resources import find_config
from fbnetv3.search import Trial
from fbnetv3.search.fbnet.config import SearchSetup
from fbnetv3.search.fbnet.evaluator import TrainEvaluator
from fbnetv3.search.fbnet.keys import get_search_cfg
from fbnetv3.training import prepare_task

_CONFIG = "search/retinanet_bccd.yaml"
_SPACE = """
rows:
  - {stage: 0, op: conv, k: 3, c: 8, s: 2, act: hswish}
  - {stage: 1, op: mbconv, k: 3, e: 1, c: 8, s: 2, act: hswish}
  - {stage: 2, op: mbconv, k: 3, e: {range: [1, 3]}, c: 16, s: 2, act: hswish}
  - {stage: 3, op: mbconv, k: 3, e: 2, c: 16, n: {range: [1, 2]}, s: 2, act: hswish}
  - {stage: 4, op: mbconv, k: 3, e: 2, c: 24, s: 2, act: hswish}
detector: {fpn_channels: {range: [16, 32, 8]}, head_convs: {range: [1, 2]}}
recipe: {lr: {range: [0.01, 0.1], log: true}, ema_decay: {choices: [0.5, 0.9]}}
"""


def _opts(folder: Path) -> list[Any]:
    (folder / "space.yaml").write_text(_SPACE)
    return [
        *("SEARCH.SPACE", str(folder / "space.yaml"), "SEARCH.CONSTRAINTS", []),
        *("DATASETS.TRAIN", ("digits_scenes_train",), "DATASETS.TEST", ("digits_scenes_test",)),
        *("SEARCH.HOLD_OUT", 12, "DATA.TRAIN_LIMIT", 16, "DATA.CHECK_IMAGES", False),
        *("INPUT.MIN_SIZE_TRAIN", (64,), "INPUT.MIN_SIZE_TEST", 64, "SEARCH.ASPECT_RATIO", 1.0),
        *("SOLVER.MAX_EPOCHS", 2.0, "TEST.EVAL_EPOCHS", 0.5, "SOLVER.CHECKPOINT_EPOCHS", 0.25),
        *("SEARCH.FINAL", ["DATA.TRAIN_LIMIT", 0, "TEST.EVAL_EPOCHS", 1.0]),
    ]


class _KilledError(Exception):
    pass


def _evaluator(folder: Path) -> tuple[TrainEvaluator, Trial]:
    cfg = get_search_cfg()
    cfg.merge_from_file(str(find_config(_CONFIG)))
    cfg.merge_from_list(_opts(folder))
    setup = SearchSetup(cfg)
    space = setup.space.space
    levels = space.canonical(space.sizes[None] // 2)
    trial = Trial(space.ids(levels)[0], 0, 0, space.configs(levels)[0])
    return TrainEvaluator(setup, str(folder / "candidates")), trial


def _outcome(folder: Path) -> tuple[float, dict[int, float], bytes]:
    evaluate, trial = _evaluator(folder)
    score = evaluate(trial)
    metrics = (folder / "candidates" / trial.id / "metrics.json").read_text()
    losses = [line.split('"total_loss": ')[1].split(",")[0] for line in metrics.splitlines()]
    return score, trial.reports, "\n".join(losses).encode()


@pytest.mark.slow
def test_a_killed_candidate_ends_where_an_undisturbed_one_does(tmp_path: Path) -> None:
    for name in ("undisturbed", "killed"):
        (tmp_path / name).mkdir()
    expected = _outcome(tmp_path / "undisturbed")
    assert sorted(expected[1]) == [2, 4, 6, 8]  # iterations: half an epoch is not a whole number

    evaluate, trial = _evaluator(tmp_path / "killed")

    def kill(step: int, score: float) -> None:
        if step == 6:
            raise _KilledError

    trial.on_report = kill
    with pytest.raises(_KilledError):
        evaluate(trial)
    assert list((tmp_path / "killed").glob("candidates/*/checkpoint_*.pt"))
    assert _outcome(tmp_path / "killed") == expected


@pytest.mark.slow
def test_a_search_over_detectors_ends_with_a_winner_that_trains(tmp_path: Path) -> None:
    run = tmp_path / "run"
    sizes = ["SEARCH.POOL_SIZE", 200, "SEARCH.BATCH_SIZE", 3, "SEARCH.ITERATIONS", 2]
    opts = [*_opts(tmp_path), *sizes, "SEARCH.FINALISTS", 1, "OUTPUT_DIR", str(run)]
    assert main(["--config-file", _CONFIG, *map(str, opts)]) == 0
    assert main(["--evolve", str(run), "--macs", "1e8"]) == 0
    assert len(list(run.glob("candidates/*/result.json"))) >= 6
    assert "box AP (%)" in (run / "report.html").read_text()

    cfg = get_cfg()
    cfg.merge_from_file(str(run / "best.yaml"))
    assert tuple(cfg.DATASETS.TRAIN) == ("digits_scenes_train",)
    assert cfg.DATA.TRAIN_LIMIT == 0
    cfg.merge_from_list(["MODEL.DEVICE", "cpu"])
    experiment = prepare_task(cfg)(cfg, runtime_context(cfg))
    assert len(experiment.classes) == 10
    assert "macs of backbone" in (run / "best.yaml").read_text()
