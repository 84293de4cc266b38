"""The best checkpoint, and the end of a training that no longer improves."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from fbnetv3.config import CfgNode, ConfigError
from fbnetv3.engine.detectron2_loop import HookBase
from fbnetv3.engine.hooks import Every
from fbnetv3.errors import FBNetError, did_you_mean

_log = logging.getLogger("fbnetv3")


class EarlyStop(FBNetError):
    """Ends the loop over steps early, which is no failure: engine/loop.py catches it."""


class BestScore:
    """The best score so far, which checkpoints store.

    Args:
        metric: Name of the score, such as ``val/top1_ema``. The lowest value is the best if the
            name contains "loss", otherwise the highest.
        patience: Number of evaluations in a row without a better score after which the training
            ends; 0 never ends it.

    Attributes:
        score: Best score; None before the first finite one.
        iteration: Number of steps after which ``score`` was first reached.
        epoch: Number of epochs after which it was reached. It is stored, since a resumed training
            may have another number of steps per epoch.
        waited: Number of evaluations with this metric since ``iteration``, or since the start of
            the training while ``score`` is None.
    """

    def __init__(self, metric: str, patience: int = 0) -> None:
        self.metric, self._patience = metric, patience
        self.score: float | None = None
        self.iteration, self.epoch = 0, 0.0
        self.waited = 0

    @property
    def is_over(self) -> bool:
        """Whether the patience is used up, so that the training should end."""
        return 0 < self._patience <= self.waited

    def improves(self, score: float, iteration: int, epoch: float) -> bool:
        """Records the score of an evaluation, and returns whether it is the best so far.

        Args:
            score: The score; one that is not finite is no improvement.
            iteration: Number of steps so far.
            epoch: Number of epochs so far.
        """
        is_loss = "loss" in self.metric
        is_better = math.isfinite(score) and (
            self.score is None or (score < self.score if is_loss else score > self.score)
        )
        if is_better:
            self.score, self.waited = score, 0
            self.iteration, self.epoch = iteration, epoch
        else:
            self.waited += 1
        return is_better

    def state(self) -> dict[str, Any]:
        """Returns plain values for a checkpoint."""
        return {
            "metric": self.metric,
            "score": self.score,
            "iteration": self.iteration,
            "epoch": self.epoch,
            "waited": self.waited,
        }

    def load_state(self, state: Mapping[str, Any] | None, data: Mapping[str, Any]) -> None:
        """Restores values of :meth:`state`; ignores None and the values of another metric.

        Args:
            state: The values.
            data: Entry ``data`` of the same checkpoint. Checkpoints of 0.1.0 do not have the epoch
                of the best score, which follows from their steps per epoch.
        """
        if state is None or state["metric"] != self.metric:
            return
        self.score, self.iteration = state["score"], int(state["iteration"])
        self.waited = int(state["waited"])
        epoch = state.get("epoch")
        if epoch is None:
            epoch = (self.iteration - data.get("offset", 0)) / data["iters_per_epoch"]
        self.epoch = float(epoch)


def best_score_from_config(
    cfg: CfgNode, scores: Sequence[str], has_average: bool, has_raw: bool
) -> BestScore | None:
    """Returns a new :class:`BestScore` of the metric in SOLVER.KEEP_BEST; None if that is empty.

    Args:
        cfg: Config of a training.
        scores: Names of the scores of the task.
        has_average: Whether averaged weights are scored; their scores' names end in ``_ema``.
        has_raw: Whether raw weights are scored beside averaged ones. Without averaged weights, raw
            weights are always scored.

    Raises:
        ConfigError: SOLVER.KEEP_BEST is not a score of the training, or is empty although
            SOLVER.EARLY_STOP_PATIENCE is set.
    """
    metric, patience = cfg.SOLVER.KEEP_BEST, cfg.SOLVER.EARLY_STOP_PATIENCE
    names = [name for name in scores if has_raw or not has_average]
    names += [f"{name}_ema" for name in scores if has_average]
    if not metric:
        if patience:
            raise ConfigError(
                f"SOLVER.EARLY_STOP_PATIENCE={patience} counts evaluations that do not improve "
                f"SOLVER.KEEP_BEST, which is empty; set it to a score such as {names[0]}"
            )
        return None
    if metric not in names:
        raise ConfigError(
            f"SOLVER.KEEP_BEST={metric!r} is no score of this training; allowed: '' and "
            f"{', '.join(names)}{did_you_mean(metric, names)}"
        )
    return BestScore(metric, patience)


class BestHook(HookBase):
    """Saves ``checkpoint_best.pt`` after an evaluation with the best score so far.

    It must come after EvalHook, and before CheckpointHook, whose checkpoints store the best score.

    Args:
        best: Best score so far.
        due: Iterations after which the weights are scored.
        epochs_of: Function that converts a number of steps into epochs.
        save: Function that saves the best checkpoint; None on ranks other than 0.
    """

    def __init__(
        self,
        best: BestScore,
        due: Every,
        epochs_of: Callable[[float], float],
        save: Callable[[], Path] | None = None,
    ) -> None:
        self._best, self._due, self._epochs_of, self._save = best, due, epochs_of, save

    def after_step(self) -> None:
        """Compares the score of an evaluation with the best one."""
        if not self._due(self.trainer):
            return
        score, iteration = self.trainer.storage.latest().get(self._best.metric, (None, -1))
        if iteration != self.trainer.iter or score is None:
            _log.warning("SOLVER.KEEP_BEST: this evaluation has no score %s", self._best.metric)
            return
        done, score = iteration + 1, _of_rank_0(float(score))
        improves = self._best.improves(score, done, self._epochs_of(done))
        if improves and self._save is not None:
            _log.info("%s %.4g is the best so far: %s", self._best.metric, score, self._save())


class EarlyStopHook(HookBase):
    """Ends the training, with a checkpoint, after the evaluation that uses up the patience.

    It must be the last hook, since hooks after it would not run.

    Args:
        best: Best score so far.
        due: Iterations after which the weights are scored.
        saving: Iterations after which another hook has saved a checkpoint.
        save: Function that saves a checkpoint; None on ranks other than 0.
    """

    def __init__(
        self, best: BestScore, due: Every, saving: Every, save: Callable[[], Path] | None = None
    ) -> None:
        self._best, self._due, self._saving, self._save = best, due, saving, save

    def after_step(self) -> None:
        """Ends the training if its score has not improved for too long.

        Raises:
            EarlyStop: The training has ended.
        """
        is_last = self.trainer.iter + 1 >= self.trainer.max_iter
        if is_last or not self._due(self.trainer) or not self._best.is_over:
            return
        if self._save is not None and not self._saving(self.trainer):
            self._save()
        raise EarlyStop


def _of_rank_0(score: float) -> float:
    """Returns the score of rank 0, so that all ranks decide alike despite rounding differences."""
    if not dist.is_initialized():
        return score
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    value = torch.tensor([score], dtype=torch.float64, device=device)
    dist.broadcast(value, src=0)
    return float(value)
