"""Each hook alone, in a loop that trains nothing."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.engine import HookBase
from detectron2.engine.train_loop import TrainerBase
from rich.console import Console
from torch import nn

from fbnetv3.engine.checkpoint import Checkpointer
from fbnetv3.engine.ema import ModelEMA
from fbnetv3.engine.hooks import (
    CheckpointHook,
    EMAHook,
    EvalHook,
    Every,
    NonFiniteWeightError,
    ProgressHook,
    WriterHook,
    evaluate_weights,
)
from fbnetv3.io import WriteError


class Task:
    """Scores a model by its first weight."""

    def evaluate(self, model: nn.Module, weights: str = "raw") -> dict[str, float]:
        return {"val/top1": next(model.parameters()).flatten()[0].item()}


class Loop(TrainerBase):
    """Adds one to the weights in each step."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
        nn.init.zeros_(self.model[0].weight)
        self.task = Task()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)

    def run_step(self) -> None:
        with torch.no_grad():
            self.model[0].weight += 1
        self.storage.put_scalar("loss", 1.0)


def run(*hooks: HookBase, start: int = 0, end: int = 6) -> Loop:
    loop = Loop()
    loop.register_hooks(list(hooks))
    loop.train(start, end)
    return loop


class At(HookBase):
    """Calls something after one iteration."""

    def __init__(self, iteration: int, call: Any) -> None:
        self._iteration, self._call = iteration, call

    def after_step(self) -> None:
        if self.trainer.iter == self._iteration:
            self._call(self.trainer)


@pytest.mark.parametrize(
    ("period", "start", "due"),
    [(1, 0, [1, 2, 3, 4, 5, 6]), (2, 1, [2, 4, 6]), (4, 0, [4, 6]), (0, 0, [6]), (100, 0, [6])],
)
def test_every(period: int, start: int, due: list[int]) -> None:
    iterations: list[int] = []
    every = Every(period)

    class Note(HookBase):
        def after_step(self) -> None:
            if every(self.trainer):
                iterations.append(self.trainer.iter + 1)

    run(Note(), start=start)
    assert iterations == due


def test_averaging_follows_each_step() -> None:
    loop = Loop()
    ema = ModelEMA(loop.model, 0.5)
    loop.register_hooks([EMAHook(ema)])
    loop.train(0, 2)
    assert float(ema.state_dict()["tensors"]["0.weight"]) == pytest.approx(0.5 * 0.5 + 0.5 * 2)


def test_raw_and_averaged_scores_are_reported() -> None:
    loop, lines, evaluations = Loop(), [], []
    ema = ModelEMA(loop.model, 0.5)
    hook = EvalHook(Every(2), ema, lines.append, lambda *x: evaluations.append(x))
    loop.register_hooks([hook])
    loop.train(0, 3)
    assert [n for n, _ in evaluations] == [2, 3]
    assert evaluations[0][1] == {"val/top1": 2.0, "val/top1_ema": 0.0}
    assert len(lines) == 2
    assert loop.model[0].weight.item() == 3.0


def test_scoring_the_average_alone() -> None:
    model = nn.Linear(1, 1, bias=False)
    assert evaluate_weights(Task(), model, ModelEMA(model, 0.5), raw=False).keys() == {
        "val/top1_ema"
    }
    assert evaluate_weights(Task(), model, None, raw=False).keys() == {"val/top1"}


def test_a_failing_evaluation_restores_the_raw_weights() -> None:
    model = nn.Linear(1, 1, bias=False)
    ema = ModelEMA(model, 0.5)
    with torch.no_grad():
        model.weight += 5
    before = float(model.weight)

    class Failing(Task):
        calls = 0

        def evaluate(self, model: nn.Module, weights: str = "raw") -> dict[str, float]:
            self.calls += 1
            if self.calls == 2:
                raise ValueError("no")
            return super().evaluate(model, weights)

    with pytest.raises(ValueError, match="no"):
        evaluate_weights(Failing(), model, ema)
    assert float(model.weight) == before


def test_the_evaluated_network_is_unwrapped() -> None:
    seen = []

    class Look(Task):
        def evaluate(self, model: nn.Module, weights: str = "raw") -> dict[str, float]:
            seen.append(type(model))
            return {}

    evaluate_weights(Look(), nn.DataParallel(nn.Linear(1, 1)), None)
    assert seen == [nn.Linear]


class Writer:
    def __init__(self, fail_write: bool = False, fail_close: bool = False) -> None:
        self.written, self.closed = 0, False
        self._fail_write, self._fail_close = fail_write, fail_close

    def write(self) -> None:
        if self._fail_write:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.written += 1

    def close(self) -> None:
        self.closed = True
        if self._fail_close:
            raise OSError(errno.ENOSPC, "No space left on device")


def test_writers_write_if_any_period_is_due(tmp_path: Path) -> None:
    writer = Writer()
    run(WriterHook([writer], [Every(2), Every(3)], tmp_path))
    assert writer.written == 4
    assert writer.closed


def test_a_full_disk_raises_one_line_and_closes_all_writers(tmp_path: Path) -> None:
    broken, other = Writer(fail_write=True, fail_close=True), Writer()
    with pytest.raises(WriteError, match="No space left") as caught:
        run(WriterHook([broken, other], [Every(1)], tmp_path))
    assert "\n" not in str(caught.value)
    assert other.closed


@pytest.mark.parametrize("name", ["0.weight", "1.running_var"])
def test_non_finite_weights_are_not_saved(tmp_path: Path, name: str) -> None:
    def spoil(loop: Loop) -> None:
        loop.model.state_dict()[name].fill_(torch.nan)

    checkpointer = Checkpointer(tmp_path)
    hook = CheckpointHook(checkpointer, Every(2), lambda: {"model": {}})
    with pytest.raises(NonFiniteWeightError, match=name):
        run(At(3, spoil), hook)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint_00000002.pt"]


def test_the_progress_bar_ends_after_an_error(tmp_path: Path) -> None:
    def fail(loop: Loop) -> None:
        raise ValueError("no")

    with (tmp_path / "out").open("w") as file:
        console = Console(file=file, force_terminal=True)
        with pytest.raises(ValueError, match="no"):
            run(ProgressHook(console), At(3, fail))
        assert not console._live_stack
    assert "training" in (tmp_path / "out").read_text()
