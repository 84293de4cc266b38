"""A training or an evaluation as a value, which a task prepares from a config."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from fbnetv3.config import CfgNode
from fbnetv3.data import TrainLoader
from fbnetv3.engine.process import RuntimeContext
from fbnetv3.engine.trainer import Task
from fbnetv3.recipe import Recipe

Reorder = Callable[[Mapping[str, Tensor], Sequence[int]], dict[str, Tensor]]
"""Function that returns a state dict with the rows of its classes in another order."""
MATCHED_BY_NAME = (
    "the classes of the weights have another order than those of the data; matched by name"
)
"""Warning about weights whose classifier rows were put into the data's order of classes."""
_log = logging.getLogger("fbnetv3")


class Summary(Protocol):
    """A summary of loaded weights; ``str(summary)`` is one line."""

    @property
    def other_classes(self) -> str:
        """How the classes of the weights differ from those of the data; empty if they do not."""

    @property
    def reordered(self) -> bool:
        """Whether the classifier's rows were put into the data's order of classes."""


def log_summary(summary: Summary) -> None:
    """Logs what was loaded; warns if the weights have other classes, or another order of them."""
    _log.info("%s", summary)
    if summary.other_classes:
        _log.warning(
            "MODEL.WEIGHTS: %s; the classifier is newly initialised and will be trained",
            summary.other_classes,
        )
    elif summary.reordered:
        _log.warning("MODEL.WEIGHTS: %s", MATCHED_BY_NAME)


@dataclass
class Experiment:
    """A config with everything that was built from it.

    Each task has one function that prepares it, for training and for evaluation alike:
    ``prepare_classifier`` and ``prepare_detector``.

    Attributes:
        cfg: The config, frozen.
        context: Process, device and console that the experiment runs on.
        recipe: Training recipe. Its durations are in epochs of the training set, and have no
            meaning in an evaluation.
        classes: Class names, one per output of the network.
        model: The network, on the device, in the channels-last memory format.
        task: Losses of a batch, and scores of a model on DATASETS.TEST.
        metadata: Strings that are exported with the weights; a model can be rebuilt from them.
        reorder: Function that returns a state dict with the classifier's rows in an order from
            :func:`fbnetv3.weights.classes.class_order`.
        train_loader: Training batches of this process; None in an evaluation.
        compiles: Whether training steps call the network in the form that torch.compile returns.
        plan: Rows (name, value) of the task at the top of the printed training plan.
    """

    cfg: CfgNode
    context: RuntimeContext
    recipe: Recipe
    classes: list[str]
    model: nn.Module
    task: Task
    metadata: dict[str, str]
    reorder: Reorder
    train_loader: TrainLoader | None = None
    compiles: bool = False
    plan: list[tuple[str, str]] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """Returns OUTPUT_DIR, the folder of the run."""
        return Path(self.cfg.OUTPUT_DIR)

    @property
    def loader(self) -> TrainLoader:
        """Returns the training batches.

        Raises:
            RuntimeError: The experiment was prepared for evaluation.
        """
        if self.train_loader is None:
            raise RuntimeError(
                "this experiment was prepared for evaluation, so it has no training batches; "
                "prepare it with training=True"
            )
        return self.train_loader
