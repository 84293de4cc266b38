"""Hooks that run between steps: averaging, evaluation, records, checkpoints, progress, curves."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
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
from fbnetv3.engine.detectron2_loop import HookBase
from fbnetv3.engine.ema import ModelEMA, unwrap
from fbnetv3.engine.metrics import restore_values
from fbnetv3.errors import FBNetError
from fbnetv3.io import WriteError

if TYPE_CHECKING:
    from fbnetv3.engine.trainer import Task, Trainer

OnEval = Callable[[float, dict[str, float]], None]
"""Called after each evaluation with the progress so far and the scores by name.

The progress is in iterations for EvalHook, and in epochs for ``Training`` (engine/loop.py).
"""
_CURVES_PERIOD = 10.0  # least number of seconds between two drawings of the curves


class NonFiniteWeightError(FBNetError):
    """A weight became infinite or NaN."""


class Every:
    """A condition that holds after every ``period``-th iteration and after the last one.

    Args:
        period: Number of iterations; 0: the condition holds after the last iteration only.
        offset: Iteration from which the periods are counted; may be negative.
    """

    def __init__(self, period: int, offset: int = 0) -> None:
        self._period, self._offset = period, offset

    def __call__(self, trainer: Any) -> bool:
        done = trainer.iter + 1
        at_period = self._period > 0 and (done - self._offset) % self._period == 0
        return done == trainer.max_iter or at_period


class ReadLossesHook(HookBase):
    """Reads the losses from the device before they are needed, and before anything is saved.

    It must come before all hooks that use the losses or save, since it raises NonFiniteLossError
    if a step since the last read had a loss that is not finite.

    Args:
        dues: Iterations after which the losses are needed.
    """

    def __init__(self, dues: list[Every]) -> None:
        self._dues = dues

    def after_step(self) -> None:
        """Reads the losses if it is due."""
        if any(due(self.trainer) for due in self._dues):
            self.trainer.read_losses()


class EMAHook(HookBase):
    """Updates the moving average after each step (paper, A.3).

    Args:
        ema: The average.
    """

    def __init__(self, ema: ModelEMA) -> None:
        self._ema = ema

    def after_step(self) -> None:
        """Updates the average."""
        self._ema.update(self.trainer.model)


class EvalHook(HookBase):
    """Scores the raw weights and their average, and puts the scores into the event storage.

    The scores of the average end in ``_ema``: ``val/top1`` and ``val/top1_ema``.

    Args:
        due: Iterations after which to evaluate.
        ema: Moving average of the weights, if one is kept.
        log: Function called with a line of text after each evaluation.
        on_eval: Function called with the number of iterations so far and the scores.
        raw: Whether to score the raw weights, too, if there is an average. Without an average they
            are always scored.
    """

    def __init__(
        self,
        due: Every,
        ema: ModelEMA | None,
        log: Callable[[str], None],
        on_eval: OnEval | None = None,
        raw: bool = True,
    ) -> None:
        self._due, self._ema, self._log, self._on_eval = due, ema, log, on_eval
        self._raw = raw

    def after_step(self) -> None:
        """Evaluates if it is due."""
        if not self._due(self.trainer):
            return
        scores = evaluate_weights(self.trainer.task, self.trainer.model, self._ema, self._raw)
        self.trainer.storage.put_scalars(smoothing_hint=False, **scores)
        self._log(f"iteration {self.trainer.iter + 1}: {format_scores(scores)}")
        if self._on_eval is not None:
            self._on_eval(self.trainer.iter + 1, scores)


def evaluate_weights(
    task: Task, model: torch.nn.Module, ema: ModelEMA | None, raw: bool = True
) -> dict[str, float]:
    """Returns the scores of the raw weights, and those of their average as ``NAME_ema``.

    Args:
        task: Task whose ``evaluate`` scores a model.
        model: Network with the raw weights.
        ema: Moving average of the weights, if there is one.
        raw: Whether to score the raw weights, too, if there is an average. Without an average they
            are always scored.
    """
    # Without the parallel wrapper, whose forward waits for the other ranks, since ranks may have
    # different numbers of batches.
    model = unwrap(model)
    scores = dict(task.evaluate(model)) if raw or ema is None else {}
    if ema is not None:
        with ema.swapped_into(model):
            averaged = task.evaluate(model, "ema")
            scores |= {f"{name}_ema": value for name, value in averaged.items()}
    return scores


def format_scores(scores: dict[str, float]) -> str:
    """Formats scores as ``val/loss 0.12, val/top1 97.3, ...``, or ``no scores``."""
    return ", ".join(f"{name} {value:.4g}" for name, value in sorted(scores.items())) or "no scores"


@contextmanager
def disk_errors_as_write_errors(folder: Path) -> Iterator[None]:
    """Turns an OSError of the ``with`` block into a WriteError of one line.

    Args:
        folder: The folder that the block writes into.

    Raises:
        WriteError: The block raised an OSError: the disk is full or cannot be written to.
    """
    try:
        yield
    except OSError as error:
        raise WriteError(
            f"cannot write in {folder}: {error.strerror or error}; free space or choose another "
            "OUTPUT_DIR, and continue with --resume"
        ) from error


class WriterHook(HookBase):
    """Writes the event storage with detectron2's writers, for example to metrics.json.

    It must come before CheckpointHook and be due whenever CheckpointHook is. The records of all
    iterations that a checkpoint covers are then written before the checkpoint, so that they are
    complete after a kill and a resumption.

    Args:
        writers: detectron2's event writers.
        dues: Iterations after which to write, one condition for each reason to write.
        folder: The folder that the writers write into, for error messages.
        recent: Latest values of the run that is resumed, as
            :func:`fbnetv3.engine.metrics.recent_values` returned them; None for a new run.
    """

    def __init__(
        self,
        writers: list[EventWriter],
        dues: list[Every],
        folder: Path,
        recent: Mapping[str, list[list[float]]] | None = None,
    ) -> None:
        self._writers, self._dues, self._folder = writers, dues, folder
        self._recent = recent or {}

    def before_train(self) -> None:
        """Puts the values of a resumed run into the event storage."""
        restore_values(self.trainer.storage, self._recent)

    def after_step(self) -> None:
        """Writes if it is due."""
        if any(due(self.trainer) for due in self._dues):
            with disk_errors_as_write_errors(self._folder):
                for writer in self._writers:
                    writer.write()

    def after_train(self) -> None:
        """Closes the writers, also after an error."""
        for writer in self._writers:
            # All records were written before; an error here would hide the run's own error.
            with suppress(OSError):
                writer.close()


class CheckpointHook(HookBase):
    """Saves checkpoints; raises an error instead if a weight is infinite or NaN.

    Args:
        checkpointer: Writer of the checkpoints.
        due: Iterations after which to save.
        state: Function that returns the state to save.
    """

    def __init__(
        self, checkpointer: Checkpointer, due: Every, state: Callable[[], dict[str, Any]]
    ) -> None:
        self._checkpointer, self._due, self._state = checkpointer, due, state

    def after_step(self) -> None:
        """Saves if it is due."""
        if self._due(self.trainer):
            self.save()

    def save(self) -> Path:
        """Saves now, and returns the path of the checkpoint.

        Raises:
            NonFiniteWeightError: A weight is infinite or NaN; earlier checkpoints are kept.
            WriteError: The disk is full or not writable; earlier checkpoints are kept.
        """
        state = self._state()
        check_weights(self.trainer)
        return self._checkpointer.save(state, self.trainer.iter + 1)


def check_weights(trainer: Trainer) -> None:
    """Checks that all weights and buffers are finite, before a checkpoint is written.

    Raises:
        NonFiniteWeightError: A weight is infinite or NaN.
    """
    weights = unwrap(trainer.model).state_dict()
    if not weights:
        return
    are_finite = torch.stack([torch.isfinite(weight).all() for weight in weights.values()])
    for name, is_finite in zip(weights, are_finite.tolist(), strict=True):
        if not is_finite:
            raise NonFiniteWeightError(
                f"{name} is not finite after iteration {trainer.iter}; no checkpoint was "
                "written, the earlier ones are kept: lower SOLVER.BASE_LR, or set "
                "SOLVER.CLIP_GRADIENTS.ENABLED True, and continue with --resume"
            )


class ProgressHook(HookBase):
    """Shows a progress bar with loss, learning rate and remaining time.

    Args:
        console: A terminal.
    """

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
        if "images_per_second" in latest:
            note += f"  {latest['images_per_second'][0]:.0f} images/s"
        self._progress.update(self._task, completed=self.trainer.iter + 1, note=note)

    def after_train(self) -> None:
        """Removes the bar."""
        self._progress.stop()


class CurvesHook(HookBase):
    """Draws ``curves.png`` from ``metrics.json``, at most every ten seconds, and at the end.

    Drawing takes half a second, which is longer than an epoch of a tiny training.

    Args:
        due: Iterations after which the metrics may hold something new to draw.
        folder: The folder of both files.
    """

    def __init__(self, due: Every, folder: Path) -> None:
        self._due, self._folder = due, folder
        self._last = 0.0
        self._is_stale = False

    def before_train(self) -> None:
        """Starts the wait of ten seconds before the first drawing."""
        self._last = time.monotonic()

    def after_step(self) -> None:
        """Draws if it is due, and ten seconds have passed or this is the last step."""
        if self._due(self.trainer):
            self._is_stale = True
            is_last = self.trainer.iter + 1 == self.trainer.max_iter
            if is_last or time.monotonic() - self._last >= _CURVES_PERIOD:
                self._draw()

    def after_train(self) -> None:
        """Draws the latest metrics if the training ends before its last step."""
        if self._is_stale:
            with suppress(FBNetError):  # the error that ends the training is the one to report
                self._draw()

    def _draw(self) -> None:
        self._is_stale, self._last = False, time.monotonic()
        plot_curves(self._folder / "metrics.json", self._folder / "curves.png")
