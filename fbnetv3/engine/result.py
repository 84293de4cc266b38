"""The result of a training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


class TrainingResult(dict[str, float]):
    """The result of a training: the scores by name, with the files of the run.

    Args:
        scores: Scores of the last evaluation, such as ``val/top1``; with SOLVER.KEEP_BEST, also the
            best score and its epoch, as ``best/...``; after an early stop, its epoch, as
            ``stopped_early/epoch``. Empty on ranks other than 0.
        weights: ``model_ema.safetensors`` if the training averages weights, else
            ``model.safetensors``.
        folder: Folder of the run, OUTPUT_DIR.
    """

    def __init__(self, scores: Mapping[str, float], weights: Path, folder: Path) -> None:
        super().__init__(scores)
        self.weights, self.folder = weights, folder

    @property
    def scores(self) -> dict[str, float]:
        """The scores by name, as a plain dict."""
        return dict(self)
