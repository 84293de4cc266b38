"""What a training or an evaluation works with, made from a config."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from fbnetv3.config import CfgNode, ConfigError
from fbnetv3.data import TrainLoader
from fbnetv3.engine.checkpoint import CheckpointError
from fbnetv3.engine.process import Process
from fbnetv3.engine.trainer import Task
from fbnetv3.recipe import Recipe

_log = logging.getLogger("fbnetv3")


@dataclass
class Run:
    """The pieces of a training."""

    cfg: CfgNode
    folder: Path
    process: Process
    device: torch.device
    recipe: Recipe
    classes: list[str]
    model: nn.Module
    task: Task
    loader: TrainLoader
    console: Console
    plan: list[tuple[str, str]]  # what the printed plan begins with
    metadata: dict[str, str]  # travels with exported weights, and makes a model of them again

    @property
    def is_main(self) -> bool:
        """Whether this process prints and writes files."""
        return self.process.rank == 0


def load_model_state(model: nn.Module, state: Mapping[str, Any], classes: Sequence[str]) -> None:
    """Loads the weights of a checkpoint.

    Raises:
        ConfigError: it is of other classes.
        CheckpointError: it is of another network.
    """
    if list(state["classes"]) != list(classes):
        raise ConfigError(
            f"the checkpoint's classes {_some(state['classes'])} are not the data's "
            f"{_some(classes)}; give the data set that it was trained on, or start anew"
        )
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        lines = str(error).splitlines()
        reason = " ".join(lines[1:2] or lines).strip()[:200]
        raise CheckpointError(
            f"the checkpoint is of another network than the config's ({reason}); give the "
            "MODEL and INPUT keys of the run, as in its config.yaml"
        ) from error


def _some(names: Sequence[str]) -> str:
    return f"({len(names)}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
