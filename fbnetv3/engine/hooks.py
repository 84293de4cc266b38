"""What happens between steps: averaging, evaluation, records, checkpoints, a clean stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from detectron2.engine import HookBase
from detectron2.utils.events import EventWriter
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from fbnetv3.engine.checkpoint import Checkpointer
from fbnetv3.engine.curves import plot_curves
from fbnetv3.engine.ema import ModelEMA, unwrap
from fbnetv3.errors import FBNetError
from fbnetv3.io import WriteError

OnEval = Callable[[float, dict[str, float]], None]
"""Told of each evaluation: how long the training is, and the scores."""


class StoppedError(FBNetError):
    """The user or the machine asked the run to stop; a checkpoint was written."""


class NonFiniteWeightError(FBNetError):
    """A weight became infinite or no number."""


class Every:
    """Tells whether something is due after an iteration: every ``period``, and at the end."""

    def __init__(self, period: int) -> None:
        self._period = period

    def __call__(self, trainer: Any) -> bool:
        done = trainer.iter + 1
        return done == trainer.max_iter or (self._period > 0 and done % self._period == 0)


class EMAHook(HookBase):
    """Updates the average after each step (paper, A.3)."""

    def __init__(self, ema: ModelEMA) -> None:
        self._ema = ema

    def after_step(self) -> None:
        """Moves the average towards the weights."""
        self._ema.update(self.trainer.model)


class EvalHook(HookBase):
    """Scores the raw weights and, where there is an average, the averaged ones side by side.

    Scores go to the event storage as ``val/top1`` and ``val/top1_ema``. With ``raw=False`` the
    former is left out where there is an average.
    """

    def __init__(
        self,
        due: Every,
        ema: ModelEMA | None,
        say: Callable[[str], None],
        on_eval: OnEval | None = None,
        raw: bool = True,
    ) -> None:
        self._due, self._ema, self._say, self._on_eval = due, ema, say, on_eval
        self._raw = raw

    def after_step(self) -> None:
        """Evaluates when it is due."""
        if not self._due(self.trainer):
            return
        scores = evaluate_weights(self.trainer.task, self.trainer.model, self._ema, self._raw)
        self.trainer.storage.put_scalars(smoothing_hint=False, **scores)
        self._say(f"iteration {self.trainer.iter + 1}: {format_scores(scores)}")
        if self._on_eval is not None:
            self._on_eval(self.trainer.iter + 1, scores)


def evaluate_weights(
    task: Any, model: torch.nn.Module, ema: ModelEMA | None, raw: bool = True
) -> dict[str, float]:
    """Returns the scores of the raw weights, and of the average under ``NAME_ema``.

    Args:
        task: scores a model.
        model: with the raw weights.
        ema: their average, if there is one.
        raw: whether the raw weights are scored too where there is an average.
    """
    # ranks have different numbers of batches: the parallel wrapper would wait for the others
    model = unwrap(model)
    scores = dict(task.evaluate(model)) if raw or ema is None else {}
    if ema is not None:
        with ema.swapped_into(model):
            averaged = task.evaluate(model, "ema")
            scores |= {f"{name}_ema": value for name, value in averaged.items()}
    return scores


def format_scores(scores: dict[str, float]) -> str:
    """Returns ``val/loss 0.12, val/top1 97.3, ...``."""
    return ", ".join(f"{name} {value:.4g}" for name, value in sorted(scores.items()))


@contextmanager
def disk_errors_as_write_errors(folder: Path) -> Iterator[None]:
    """Makes one line of what the system says of a full or forbidden disk.

    Raises:
        WriteError: instead of OSError.
    """
    try:
        yield
    except OSError as error:
        raise WriteError(
            f"cannot write in {folder}: {error.strerror or error}; free space or choose another "
            "OUTPUT_DIR, and go on with --resume"
        ) from error


class WriterHook(HookBase):
    """Writes the event storage out every few iterations, and before each checkpoint.

    What a checkpoint covers is so on disk before it: a run that is killed and resumed has every
    evaluation in its records.
    """

    def __init__(self, writers: list[EventWriter], dues: list[Every], folder: Path) -> None:
        self._writers, self._dues, self._folder = writers, dues, folder

    def after_step(self) -> None:
        """Writes when it is due."""
        if any(due(self.trainer) for due in self._dues):
            with disk_errors_as_write_errors(self._folder):
                for writer in self._writers:
                    writer.write()

    def after_train(self) -> None:
        """Closes the writers, also after an error."""
        for writer in self._writers:
            # all that counts was written before; the error that ended the run is the one to tell
            with suppress(OSError):
                writer.close()


class CheckpointHook(HookBase):
    """Saves when it is due, unless a weight is no finite number."""

    def __init__(
        self, checkpointer: Checkpointer, due: Every, state: Callable[[], dict[str, Any]]
    ) -> None:
        self._checkpointer, self._due, self._state = checkpointer, due, state

    def after_step(self) -> None:
        """Saves when it is due."""
        if self._due(self.trainer):
            self.save()

    def save(self) -> Path:
        """Saves now; ``iteration`` is the next one to run.

        Raises:
            FBNetError: a weight is infinite or no number; the earlier checkpoints are kept.
        """
        for name, weight in unwrap(self.trainer.model).state_dict().items():
            if not torch.isfinite(weight).all():
                raise NonFiniteWeightError(
                    f"{name} is not finite after iteration {self.trainer.iter}; no checkpoint "
                    "is written over the good ones: lower SOLVER.BASE_LR, or clip with "
                    "SOLVER.CLIP_GRADIENTS.ENABLED True, and go on with --resume"
                )
        return self._checkpointer.save(self._state(), self.trainer.iter + 1)


class StopHook(HookBase):
    """Turns SIGINT and SIGTERM into a checkpoint at the end of the step and a clean stop.

    A second signal stops at once. For one process only: ranks would stop at different steps.
    """

    def __init__(self, save: Callable[[], Path]) -> None:
        self._save = save
        self._signal: int | None = None
        self._before: dict[int, Any] = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._signal is not None:
            raise KeyboardInterrupt
        self._signal = number

    def before_train(self) -> None:
        """Takes over the two signals; where another thread trains, they stay as they are."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)

    def after_step(self) -> None:
        """Stops if a signal has come."""
        if self._signal is not None:
            name = signal.Signals(self._signal).name
            raise StoppedError(f"stopped by {name}; saved {self._save()}; go on with --resume")

    def after_train(self) -> None:
        """Gives the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)


class ProgressHook(HookBase):
    """A bar with loss, lr and the time left, on terminals; elsewhere log lines say the same."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
        )

    def before_train(self) -> None:
        """Shows the bar."""
        start, end = self.trainer.start_iter, self.trainer.max_iter
        self._task = self._progress.add_task("", total=end, completed=start, note="")
        self._progress.start()

    def after_step(self) -> None:
        """Moves the bar."""
        latest = self.trainer.storage.latest()
        loss = latest.get("total_loss", latest.get("loss", (float("nan"), 0)))[0]
        lr = self.trainer.optimizer.param_groups[0]["lr"]
        note = f"loss {loss:.3f}  lr {lr:.4g}"
        self._progress.update(self._task, completed=self.trainer.iter + 1, note=note)

    def after_train(self) -> None:
        """Takes the bar away."""
        self._progress.stop()


class CurvesHook(HookBase):
    """Draws ``curves.png`` from ``metrics.json`` at each evaluation."""

    def __init__(self, due: Every, folder: Path) -> None:
        self._due, self._folder = due, folder

    def after_step(self) -> None:
        """Draws when it is due."""
        if self._due(self.trainer):
            plot_curves(self._folder / "metrics.json", self._folder / "curves.png")
