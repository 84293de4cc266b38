"""Hooks and writers that a user adds to a training, by name in a config or as objects."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.utils.events import EventWriter

from fbnetv3.config import CfgNode, ConfigError, iter_keys
from fbnetv3.engine.detectron2_loop import HookBase
from fbnetv3.engine.writers import StorageWriter, Writer, WriterRun
from fbnetv3.errors import FBNetError, first_line
from fbnetv3.plain_yaml import parse_mapping
from fbnetv3.registries import HOOKS, WRITERS
from fbnetv3.registry import Registry, RegistryError

_log = logging.getLogger("fbnetv3")


@dataclass(frozen=True)
class Additions:
    """Hooks and writers that a caller adds to those that the config names.

    Attributes:
        hooks: detectron2's hooks; they run on all ranks, after evaluations and before checkpoints.
        writers: Objects with the methods of :class:`Writer`, or detectron2's event writers; they
            run on rank 0.
        search: Folder of the search that the training is a trial of; "" if it is no trial.

    Raises:
        ConfigError: A hook is no instance of detectron2's HookBase, or a writer lacks a method.
    """

    hooks: Sequence[HookBase] = ()
    writers: Sequence[Writer | EventWriter] = ()
    search: str = ""

    def __post_init__(self) -> None:
        for hook in self.hooks:
            _check_hook(hook, "hooks")
        for writer in self.writers:
            if not isinstance(writer, (Writer, EventWriter)):
                raise ConfigError(
                    f"writers: a {type(writer).__name__} is no writer; allowed: an object with the "
                    "methods log(values, iteration) and close(), or detectron2's EventWriter"
                )


def check_names(cfg: CfgNode) -> None:
    """Checks that the names in HOOKS and WRITERS are registered.

    Raises:
        ConfigError: A name is unknown; the message lists the known ones.
    """
    for key, registry in _REGISTRIES.items():
        for name in cfg[key]:
            try:
                registry.get(name)
            except RegistryError as error:
                raise ConfigError(f"{key}: {error}") from error


_REGISTRIES: Mapping[str, Registry[Any]] = {"HOOKS": HOOKS, "WRITERS": WRITERS}


def added_hooks(cfg: CfgNode, additions: Additions) -> list[HookBase]:
    """Returns the hooks that the config's key HOOKS names, then those of the caller.

    Raises:
        ConfigError: A registered function returns no hook.
    """
    hooks = []
    for name in cfg.HOOKS:
        hook = HOOKS.get(name)(cfg)
        _check_hook(hook, f"HOOKS: {name}")
        hooks.append(hook)
    return [*hooks, *additions.hooks]


def _check_hook(hook: object, where: str) -> None:
    if not isinstance(hook, HookBase):
        raise ConfigError(
            f"{where}: a {type(hook).__name__} is no hook; allowed: an object of a class that "
            "derives from detectron2.engine.HookBase"
        )


def hook_states(hooks: Sequence[HookBase]) -> list[Any]:
    """Returns the ``state_dict()`` of each hook, for a checkpoint."""
    return [hook.state_dict() for hook in hooks]


def load_hook_states(hooks: Sequence[HookBase], states: Sequence[Any]) -> None:
    """Restores hooks with a method ``load_state_dict``.

    If the number of hooks has changed, a warning says so and none is restored.
    """
    if len(hooks) != len(states):
        _log.warning(
            "the checkpoint was written with %d hooks of the user, now there are %d: no hook "
            "gets its state back",
            *(len(states), len(hooks)),
        )
        return
    for hook, state in zip(hooks, states, strict=True):
        if state and hasattr(hook, "load_state_dict"):
            hook.load_state_dict(state)


def added_writers(
    cfg: CfgNode, additions: Additions, folder: Path, start_iter: int, *, pictures: bool
) -> list[EventWriter]:
    """Returns the writers that the config's key WRITERS names, then those of the caller.

    Args:
        cfg: Config of the training.
        additions: Hooks and writers of the caller.
        folder: Folder of the run.
        start_iter: First iteration that is recorded; above 0 in a resumed training.
        pictures: Whether event files of TensorBoard are written; trials of a search write none.

    Raises:
        FBNetError: A writer cannot start, or lacks a method.
        OSError: A writer cannot write its files.
    """
    run = WriterRun(folder, plain_config(cfg), start_iter, additions.search)
    names = [name for name in cfg.WRITERS if pictures or name != "tensorboard"]
    return [
        *(as_event_writer(make_writer(name, run), name) for name in names),
        *(as_event_writer(writer, type(writer).__name__) for writer in additions.writers),
    ]


def plain_config(cfg: CfgNode) -> dict[str, Any]:
    """Returns a config's values, as plain types, by full key such as ``SOLVER.BASE_LR``."""
    return dict(iter_keys(parse_mapping(cfg.dump())))


def make_writer(name: str, run: WriterRun) -> Writer | EventWriter:
    """Returns a registered writer of a run.

    Raises:
        FBNetError: The writer cannot start, for example because its server does not answer, or it
            lacks a method.
        OSError: The writer cannot write its files.
    """
    try:
        writer = WRITERS.get(name)(run)
    except (FBNetError, OSError, MemoryError):
        raise
    except Exception as error:  # tracking libraries raise errors of any kind
        raise ConfigError(
            f"WRITERS: {name} cannot start ({type(error).__name__}: {first_line(error)}); correct "
            "its settings, or leave it out"
        ) from error
    if not isinstance(writer, (Writer, EventWriter)):
        raise ConfigError(
            f"WRITERS: {name} made a {type(writer).__name__}; allowed: an object with the methods "
            "log(values, iteration) and close()"
        )
    return writer


def as_event_writer(writer: Writer | EventWriter, name: str) -> EventWriter:
    """Returns a writer as an event writer of detectron2; ``name`` is for messages."""
    return writer if isinstance(writer, EventWriter) else StorageWriter(writer, name)
