"""Winners that change while an earlier winner trains under the same name."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("detectron2")

from fbnetv3.config import get_cfg
from fbnetv3.config.archs import arch_from_config
from fbnetv3.config.changes import write_config
from fbnetv3.search.fbnet import SearchRun, read_search_config, report_run, run_search
from fbnetv3.search.fbnet.config import SearchSetup
from fbnetv3.search.fbnet.evaluator import TrainEvaluator
from fbnetv3.search.fbnet.run_folder import RunFolder
from fbnetv3.search.fbnet.winner_trainings import training_lines
from fbnetv3.search.fbnet.winners import write_winner

SMALL: list[Any] = [
    *("SEARCH.BATCH_SIZE", 3, "SEARCH.FINALISTS", 0, "SEARCH.POOL_SIZE", 100),
    *("SEARCH.WORKERS", 0, "SEARCH.PREDICTOR", "random", "SEARCH.BUDGETS", []),
    *("SEARCH.FIX", ["resolution", 16, "stage1_n", 1, "stage2_n", 1, "stage3_n", 1]),
]
RECIPE = "recipe: {lr: {choices: [0.1, 0.2, 0.3]}}\n"
LATER = "trains in best_2/, since best/ held the training of another candidate"


def _train(path: Path, top1: float, *opts: Any) -> str:
    """Writes what a training of a config writes at its beginning and end.

    Args:
        path: Config of the training.
        top1: Top-1 accuracy in percent.
        opts: Overrides of the config: KEY, VALUE, ...

    Returns:
        The name of the folder of the training.
    """
    cfg = get_cfg()
    cfg.merge_from_file(str(path))
    cfg.merge_from_list(list(opts))
    folder = path.with_name(Path(cfg.OUTPUT_DIR).name)
    folder.mkdir()
    write_config(folder / "config.yaml", cfg, get_cfg())
    (folder / "metrics.json").write_text(f'{{"iteration": 1, "val/top1": {top1}}}\n')
    return folder.name


def _arch(path: Path) -> Any:
    cfg = get_cfg()
    cfg.merge_from_file(str(path))
    return arch_from_config(cfg)


@pytest.fixture(params=["rows", "recipe"])
def setup(request: pytest.FixtureRequest, tmp_path: Path) -> SearchSetup:
    """A search over networks and recipes, or over recipes of one network."""
    opts = list(SMALL)
    if request.param == "recipe":
        (tmp_path / "space.yaml").write_text(RECIPE)
        opts += ["SEARCH.SPACE", str(tmp_path / "space.yaml"), "SEARCH.FIX", []]
        opts += ["SEARCH.CONSTRAINTS", [], "MODEL.ARCH", "fbnetv3_nano_a"]
    return SearchSetup(read_search_config("search/digits.yaml", opts))


def _write(setup: SearchSetup, folder: Path, level: int) -> Path:
    """Writes the candidate with the given level of each variable as ``best.yaml``."""
    space = setup.space.space
    levels = space.canonical((space.sizes * 0 + level).clip(max=space.sizes - 1)[None])
    folder.mkdir(exist_ok=True)
    return write_winner(setup, RunFolder(folder), "best", space.configs(levels)[0], ["fact"]).path


def test_a_search_that_goes_on_credits_a_winner_with_its_own_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainEvaluator, "__call__", lambda self, trial: 10.0 + trial.number)

    def search(batches: int) -> SearchRun:
        opts = [*SMALL, "SEARCH.ITERATIONS", batches]
        return run_search(read_search_config("search/digits.yaml", opts), tmp_path / "run")

    first = search(1)
    assert _train(first.best.path, 91.5) == "best"
    assert "trained: top1 91.5" in report_run(tmp_path / "run").read_text()
    second = search(2)
    assert second.result.best != first.result.best
    assert second.best.facts[-1] == LATER
    assert LATER in second.report.read_text()
    assert "91.5" not in second.report.read_text()
    cfg = get_cfg()
    cfg.merge_from_file(str(second.best.path))
    assert str(tmp_path / "run" / "best_2") == cfg.OUTPUT_DIR
    assert search(2).best == second.best


def test_each_winner_trains_in_a_folder_of_its_own(setup: SearchSetup, tmp_path: Path) -> None:
    run = tmp_path / "run"
    written: dict[str, tuple[bytes, Any]] = {}
    # The winner of each writing, the folder in which it trains, and its score after training.
    for level, folder, score in [
        (0, "best", 90.5),
        (1, "best_2", 80.5),
        (1, "best_2", 80.5),
        (2, "best_3", 70.5),
        (0, "best", 90.5),
        (1, "best_2", 80.5),
    ]:
        path = _write(setup, run, level)
        if not (run / folder).exists():
            assert training_lines(path) == []
            assert _train(path, score) == folder
            written[folder] = path.read_bytes(), _arch(path)
        assert training_lines(path) == [f"trained: top1 {score}"]
        assert path.read_bytes() == written[folder][0]
        # Trainings of earlier winners can be resumed from their own configs.
        archs = {name: _arch(run / name / "config.yaml") for name in written}
        assert archs == {name: arch for name, (_, arch) in written.items()}


def test_a_winner_trains_on_in_a_folder_that_was_moved(setup: SearchSetup, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for level, name in [(0, "best"), (1, "best_2")]:
        assert _train(_write(setup, run, level), 91.5) == name
    moved = Path(shutil.move(run, tmp_path / "moved"))
    assert training_lines(moved / "best.yaml") == ["trained: top1 91.5"]
    path = _write(setup, moved, 1)
    assert f"OUTPUT_DIR: {moved / 'best_2'}\n" in path.read_text()
    assert training_lines(path) == ["trained: top1 91.5"]


def test_a_winner_without_a_training_is_replaced(setup: SearchSetup, tmp_path: Path) -> None:
    run = tmp_path / "run"
    before = _write(setup, run, 0).read_text()
    path = _write(setup, run, 1)
    assert path.read_text() != before
    assert f"OUTPUT_DIR: {run / 'best'}\n" in path.read_text()
    written = {path.name for path in run.glob("best*")}
    assert written - {"best_arch.yaml"} == {"best.yaml", "best_full.yaml"}


@pytest.mark.parametrize("setup", ["rows"], indirect=True)
@pytest.mark.parametrize(
    ("opts", "keys"),
    [
        (["SEED", 3, "MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", 1], ""),
        (["SOLVER.NESTEROV", False], ""),  # as version 0.1 wrote it; rmsprop does not read the key
        (["SOLVER.BASE_LR", 7.0, "MODEL_EMA.DECAY", 0.5], "MODEL_EMA.DECAY, SOLVER.BASE_LR"),
        (["MODEL.ARCH", "fbnetv3_a"], "MODEL.ARCH"),
        (
            ["SOLVER.BASE_LR", 7.0, "SOLVER.MAX_EPOCHS", 1.5, "INPUT.MIXUP", 0.3, "MODEL.WIDTH", 2],
            "INPUT.MIXUP, MODEL.WIDTH, SOLVER.BASE_LR and others",
        ),
    ],
)
def test_a_training_with_other_values_is_not_credited(
    setup: SearchSetup, tmp_path: Path, opts: list[Any], keys: str
) -> None:
    other = f"best/ holds a training of another network or recipe ({keys})"
    line = f"{other}, whose scores are left out" if keys else "trained: top1 91.5"
    path = _write(setup, tmp_path / "run", 0)
    _train(path, 91.5, *opts)
    assert training_lines(path) == [line]
    before = path.read_bytes()
    _write(setup, tmp_path / "run", 0)  # the same winner: its training goes on
    assert path.read_bytes() == before


@pytest.mark.parametrize("setup", ["rows"], indirect=True)
@pytest.mark.parametrize("text", ["- 1", "MODEL: {ARCH: 3}", "{", "NOTHING: 1"])
def test_a_training_with_a_damaged_config_is_not_credited(
    setup: SearchSetup, tmp_path: Path, text: str
) -> None:
    path = _write(setup, tmp_path / "run", 0)
    _train(path, 91.5)
    (tmp_path / "run" / "best" / "config.yaml").write_text(text)
    line = "best/config.yaml or best.yaml cannot be read: no scores of a training"
    assert training_lines(path) == [line]
    _write(setup, tmp_path / "run", 1)
    assert "OUTPUT_DIR: " + str(tmp_path / "run" / "best_2") in path.read_text()
