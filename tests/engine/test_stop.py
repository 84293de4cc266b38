"""Stops by signals: of one process, and of several, which agree on a step and save."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from detectron2.engine import HookBase
from detectron2.engine.train_loop import TrainerBase

from fbnetv3.engine import stop
from fbnetv3.engine.errors import StoppedError
from fbnetv3.engine.stop import StopAgreement, StopHook
from tests.processes import TORCHRUN, Command, Start, finish, wait_for_checkpoint
from tests.runs import assert_same_run, last_iteration, wait_for_steps

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1]
STOPS_WITHIN = 20.0
"""Seconds in which two processes save and end; on an idle machine it takes some 2."""


class Loop(TrainerBase):
    def run_step(self) -> None:
        pass


class At(HookBase):
    """Sends signals to this process after some iterations."""

    def __init__(self, *sent: tuple[int, signal.Signals]) -> None:
        self._sent = sent

    def after_step(self) -> None:
        for iteration, number in self._sent:
            if self.trainer.iter == iteration:
                os.kill(os.getpid(), number)


def run(*hooks: HookBase, end: int = 6) -> None:
    loop = Loop()
    loop.register_hooks(list(hooks))
    loop.train(0, end)


@pytest.fixture
def default_signals() -> Iterator[None]:
    """The default handlers; the tests may run under nohup."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in SIGNALS[2:]}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_stops_after_the_step(
    number: signal.Signals, tmp_path: Path, default_signals: None
) -> None:
    before = signal.getsignal(number)
    saved: list[Path] = []

    def save() -> Path:
        saved.append(tmp_path / "x")
        return saved[-1]

    hook = StopHook(save, lambda iteration: tmp_path / f"x{iteration}")
    with pytest.raises(StoppedError, match=f"stopped by {number.name}; saved .*x3; .*--resume"):
        run(At((2, number)), hook)
    assert len(saved) == 1
    assert signal.getsignal(number) == before


def test_a_second_signal_stops_one_process_at_once(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(
            At((2, signal.SIGTERM), (2, signal.SIGINT)),
            StopHook(lambda: tmp_path, lambda iteration: tmp_path),
        )
    assert signal.getsignal(signal.SIGINT) == before


# --- agreement ---


@pytest.fixture
def one_rank(tmp_path: Path) -> Iterator[None]:
    """A process group of this process alone."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_further_signals_are_ignored_where_ranks_agree(one_rank: None, tmp_path: Path) -> None:
    sent = At((1, signal.SIGTERM), (1, signal.SIGTERM), (1, signal.SIGINT))
    hook = StopHook(None, lambda n: tmp_path / str(n), StopAgreement(torch.device("cpu")))
    with pytest.raises(StoppedError, match="SIGTERM"):
        run(sent, hook, end=10**6)
    os.kill(os.getpid(), signal.SIGTERM)  # one that a launcher passes on late


class Ranks:
    """Agreements of several ranks in one process, whose questions are answered together."""

    def __init__(self, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.questions = 0
        self.agreements = [StopAgreement(torch.device("cpu")) for _ in range(count)]
        monkeypatch.setattr(stop.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(stop.dist, "all_reduce", self._ask)
        self._asked: list[torch.Tensor] = []
        self._answer: torch.Tensor | None = None

    def _ask(self, question: torch.Tensor, operation: Any) -> None:
        assert operation == dist.ReduceOp.MAX
        self._asked.append(question.clone())
        if self._answer is not None:
            question.copy_(self._answer)

    def step(self, iteration: int, numbers: list[int]) -> list[int]:
        """Returns what the ranks agree on; the first round only collects their questions."""
        states = [dict(agreement.__dict__) for agreement in self.agreements]
        self._asked, self._answer = [], None
        self._round(iteration, numbers)
        assert len(self._asked) in (0, len(numbers)), "some ranks ask, and others do not"
        self.questions += bool(self._asked)
        if self._asked:
            self._answer = torch.stack(self._asked).max(0).values
        for agreement, state in zip(self.agreements, states, strict=True):
            agreement.__dict__.update(state)
        return self._round(iteration, numbers)

    def _round(self, iteration: int, numbers: list[int]) -> list[int]:
        pairs = zip(self.agreements, numbers, strict=True)
        return [agreement.agreed(iteration, number) for agreement, number in pairs]


@pytest.mark.parametrize("seconds", [0.001, 0.01, 0.3, 5.0])
@pytest.mark.parametrize("rank", [0, 2])
def test_ranks_stop_at_the_same_step_within_seconds(
    monkeypatch: pytest.MonkeyPatch, seconds: float, rank: int
) -> None:
    ranks = Ranks(3, monkeypatch)
    signalled, number = 2000, int(signal.SIGTERM)
    for iteration in range(6000):
        ranks.now += seconds
        numbers = [number if i == rank and iteration >= signalled else 0 for i in range(3)]
        stops = ranks.step(iteration, numbers)
        assert len(set(stops)) == 1
        if stops[0]:
            break
    assert stops == [number] * 3
    assert 0 <= (iteration - signalled) * seconds <= max(2.0, seconds)
    # about one question a second, at most one a step
    assert ranks.questions <= min(iteration + 1, 1.5 * iteration * seconds + 20)


# --- two processes ---


@pytest.mark.slow
def test_two_processes_save_when_they_are_stopped(
    command: Command, start: Start, fork: Start, tmp_path: Path
) -> None:
    """SIGTERM to the launch, to all processes as batch systems send it, and under torchrun."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    long = {
        "SOLVER__MAX_EPOCHS": 24.0, "SOLVER__CHECKPOINT_EPOCHS": 2.0, "TEST__EVAL_EPOCHS": 12.0,
    }  # fmt: skip
    flags = ("--num-processes", "2")
    finish(fork(command(*flags, OUTPUT_DIR=str(whole), **long)))
    for number, how in enumerate(("launch", "group", "torchrun")):
        launcher = {"launcher": TORCHRUN} if how == "torchrun" else {}
        options = ("--resume", *(() if launcher else flags))
        before = last_iteration(stopped)
        begin = start if launcher else fork
        process = begin(command(*options, OUTPUT_DIR=str(stopped), **launcher, **long))
        if number == 0:
            wait_for_checkpoint(stopped, process)
        else:
            wait_for_steps(stopped, before, process)
        begun = time.monotonic()
        if how == "group":
            os.killpg(process.pid, signal.SIGTERM)
        else:
            process.send_signal(signal.SIGTERM)
        if how == "torchrun":
            _, stderr = process.communicate(timeout=300)
            assert process.returncode != 0
        else:
            _, stderr = finish(process, 2)
        assert time.monotonic() - begun < STOPS_WITHIN
        (line,) = [text for text in stderr.splitlines() if text.startswith("error")]
        path = stopped / f"checkpoint_{last_iteration(stopped):08d}.pt"
        assert line == f"error: stopped by SIGTERM; saved {path}; continue with --resume"
        assert before < last_iteration(stopped) < 144
    finish(fork(command("--resume", *flags, OUTPUT_DIR=str(stopped), **long)))
    assert_same_run(whole, stopped)
