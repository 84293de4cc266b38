"""Checkpoints that survive a kill at any moment, and exported weights."""

from __future__ import annotations

import logging
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fbnetv3.config import ConfigError
from fbnetv3.engine.checkpoint_files import damage, is_surely_damaged, names_in
from fbnetv3.errors import FBNetError, first_line
from fbnetv3.io import WriteError, atomic_write
from fbnetv3.weights.run_folder import BEST, is_checkpoint, iteration_of
from fbnetv3.weights.safetensors_header import sorted_header

__all__ = [
    "FORMAT_VERSION",
    "MIGRATIONS",
    "CheckpointError",
    "Checkpointer",
    "export_weights",
    "load_checkpoint",
    "load_model_state",
]

FORMAT_VERSION = 1
"""Version of the keys of checkpoints; rises when older versions of the package cannot read them."""
Migration = Callable[[dict[str, Any]], dict[str, Any]]
MIGRATIONS: dict[int, Migration] = {}
"""Format version -> function that turns a state of that version into one of the next version."""

# Types of plain values that torch.load accepts with weights_only=True
_SCALARS = (str, int, float, bool, bytes, type(None), torch.Size, torch.dtype, torch.device)
_log = logging.getLogger(__name__)


class CheckpointError(FBNetError):
    """A checkpoint is missing, damaged, unsafe, or of another program, network or version."""


class Checkpointer:
    """Keeps the newest checkpoints of one run in a folder, as ``checkpoint_{iteration:08d}.pt``.

    A file appears under its name only when it is complete and on disk (``atomic_write``), and
    older checkpoints are removed only after that. A state holds tensors and plain values only, so
    that it loads with ``weights_only=True``. It has these keys:

    - ``format_version``, ``iteration``: set by :meth:`save`; iteration is the next one to run
    - ``model``: state dict of the network
    - ``ema``: ``ModelEMA.state_dict()``, or None
    - ``optimizer``, ``scheduler``, ``scaler``: their state dicts
    - ``rng``: state of the random generators, see :func:`fbnetv3.engine.rng.capture_rng`
    - ``data``: seed, steps per epoch, and offset: the number that is subtracted from an iteration
      to get its position in the schedule (0 unless a resumed training has had another number of
      steps per epoch); the order of images follows from the seed and this position
    - ``metrics``: values of the last iterations, for the medians in metrics.json
    - ``recipe``: ``Recipe.to_dict()``; ``config``: yaml text; ``arch``: yaml text or name
    - ``classes``: class names; ``task``: result of ``Task.state``, see engine/trainer.py
    - ``best``: the best score so far, only with SOLVER.KEEP_BEST
    - ``hooks``: states of the user's hooks, only with such hooks

    Args:
        folder: Folder of the run, made on the first save.
        keep: Number of newest checkpoints that are kept; at least 1.
        on_save: Function called with the path of each checkpoint that was written.

    Raises:
        CheckpointError: ``keep`` is below 1.
    """

    def __init__(
        self,
        folder: str | Path,
        keep: int = 2,
        on_save: Callable[[Path], None] | None = None,
    ) -> None:
        if keep < 1:
            raise CheckpointError(f"Checkpointer keep={keep!r} is out of range; allowed: >= 1")
        self.folder = Path(folder)
        self.keep = keep
        self._on_save = on_save

    def save(self, state: Mapping[str, Any], iteration: int) -> Path:
        """Writes a checkpoint, and removes older ones beyond the newest ``keep``.

        Args:
            state: Tensors and plain values under the keys that the class lists.
            iteration: Next iteration to run; at least 0.

        Returns:
            The path of the checkpoint.

        Raises:
            CheckpointError: The state holds an object that could not be loaded again.
            WriteError: The disk is full or not writable; earlier checkpoints are kept.
        """
        path = self.path(iteration)
        self._write(state, iteration, path)
        self._prune(iteration)
        if self._on_save is not None:
            self._on_save(path)
        return path

    def save_best(self, state: Mapping[str, Any], iteration: int) -> Path:
        """Writes ``checkpoint_best.pt``, replacing an earlier one.

        Args:
            state: State as for :meth:`save`.
            iteration: Next iteration to run.

        Returns:
            The path of the checkpoint.

        Raises:
            CheckpointError: The state holds an object that could not be loaded again.
            WriteError: The disk is full or not writable; the earlier one is kept.
        """
        path = self.folder / BEST
        self._write(state, iteration, path)
        if self._on_save is not None:
            self._on_save(path)
        return path

    def _write(self, state: Mapping[str, Any], iteration: int, path: Path) -> None:
        full = {**state, "format_version": FORMAT_VERSION, "iteration": int(iteration)}
        _require_plain(full, "state")
        with atomic_write(path) as temporary:
            _torch_save(full, temporary, path)

    def path(self, iteration: int) -> Path:
        """Returns the path of the checkpoint of an iteration."""
        return self.folder / f"checkpoint_{iteration:08d}.pt"

    def latest(self) -> Path | None:
        """Returns the newest intact regular checkpoint, or None; damaged ones are skipped.

        Raises:
            CheckpointError: The folder cannot be read.
        """
        for _, path in reversed(self._files()):
            reason = damage(path)
            if reason is None:
                return path
            _log.warning("skipped the checkpoint %s: it %s", path, reason)
        return None

    def newest(self) -> Path | None:
        """Returns the checkpoint that a run continues from, or None: the newest intact one.

        If every regular checkpoint is missing or damaged, it is the best one (SOLVER.KEEP_BEST), if
        that is intact. One that cannot be read for now may come back, and is not replaced.

        Raises:
            CheckpointError: The folder cannot be read.
        """
        latest, files = self.latest(), self._files()
        if latest is not None or not all(is_surely_damaged(path) for _, path in files):
            return latest
        if BEST not in self.names() or damage(self.folder / BEST) is not None:
            return None
        if files:
            _log.warning("no regular checkpoint is intact: %s is used", self.folder / BEST)
        return self.folder / BEST

    def load(self, path: str | Path) -> dict[str, Any]:
        """Reads a checkpoint into CPU memory, as :func:`load_checkpoint` does."""
        return load_checkpoint(path)

    def _files(self) -> list[tuple[int, Path]]:
        numbered = ((iteration_of(name), self.folder / name) for name in self.names())
        return sorted((number, path) for number, path in numbered if number is not None)

    def names(self) -> list[str]:
        """Lists the names of all files in the folder; [] if there is no folder.

        Raises:
            CheckpointError: The folder cannot be read.
        """
        try:
            return names_in(self.folder)
        except OSError as error:
            raise CheckpointError(
                f"cannot read the folder {self.folder}: {error.strerror}; an earlier run in it "
                "cannot be ruled out: make it readable, or set another OUTPUT_DIR"
            ) from error

    def _prune(self, iteration: int) -> None:
        """Removes leftovers of killed runs, and checkpoints before that of ``iteration``.

        The latest ``keep`` checkpoints up to ``iteration`` stay, which include its own.
        """
        files = self._files()
        for _, path in [f for f in files if f[0] <= iteration][: -self.keep]:
            if not path.is_dir():
                path.unlink(missing_ok=True)
        for _, path in [f for f in files if f[0] > iteration]:
            if is_surely_damaged(path):  # every later resume would have to skip it again
                path.unlink(missing_ok=True)
        for leftover in self.folder.glob(".checkpoint_*.pt.*"):
            if is_checkpoint(leftover.stem[1:]):
                leftover.unlink(missing_ok=True)


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint into CPU memory, migrated to this program's format version.

    Args:
        path: The file.

    Raises:
        CheckpointError: The file is missing, damaged, not a checkpoint of this program, holds
            objects other than tensors and plain values, or has a format version that this program
            cannot read.
    """
    reason = damage(Path(path))
    if reason:
        raise CheckpointError(f"cannot load checkpoint {path}: it {reason}; use an earlier one")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"cannot load checkpoint {path}: it holds objects other than tensors and plain values "
            "(perhaps code), which are never loaded; give a checkpoint that this program wrote"
        ) from error
    return _migrated(state, path)


def load_model_state(model: nn.Module, state: Mapping[str, Any], classes: Sequence[str]) -> None:
    """Loads the weights of a checkpoint into a model.

    Args:
        model: The network to load into.
        state: State of a checkpoint, as :func:`load_checkpoint` returns it.
        classes: Class names of the data.

    Raises:
        ConfigError: The checkpoint has other classes, or the same ones in another order.
        CheckpointError: The checkpoint is of another network.
    """
    if list(state["classes"]) != list(classes):
        raise ConfigError(
            f"the checkpoint was trained on the classes {_some(state['classes'])}, but the "
            f"data has {_some(classes)}; use the data set it was trained on, or another OUTPUT_DIR"
        )
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        lines = str(error).splitlines()
        reason = " ".join(lines[1:2] or lines).strip()[:200]
        raise CheckpointError(
            f"the checkpoint is of another network than the config describes ({reason}); use the "
            "MODEL and INPUT keys in config.yaml of the run, or another OUTPUT_DIR"
        ) from error


def load_optimizer_state(optimizer: Optimizer, state: Mapping[str, Any], name: str) -> None:
    """Loads an optimizer's state from a checkpoint, but keeps the lr, decays etc. of the config.

    Args:
        optimizer: Optimizer of the config, over the same groups of parameters.
        state: The checkpoint.
        name: Name of the optimizer in the config, SOLVER.OPTIMIZER.

    Raises:
        ConfigError: The checkpoint has another optimizer, or other groups of parameters.
    """
    before = state["recipe"]["optimizer"]
    if before != name:
        raise ConfigError(
            f"SOLVER.OPTIMIZER is {name}, but the checkpoint was written with {before}: set it "
            "back, or start from the weights alone (MODEL.WEIGHTS) in another OUTPUT_DIR"
        )
    settings = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    try:
        optimizer.load_state_dict(state["optimizer"])
    except ValueError as error:
        raise ConfigError(
            "the checkpoint has other groups of parameters: set MODEL.FREEZE, SOLVER.LAYER_DECAY, "
            "HEAD_LR_FACTOR and WEIGHT_DECAY_BIAS back, or use MODEL.WEIGHTS in another OUTPUT_DIR"
        ) from error
    for group, setting in zip(optimizer.param_groups, settings, strict=True):
        group.update(setting, initial_lr=setting["lr"])  # the schedule multiplies initial_lr


def _some(names: Sequence[str]) -> str:
    return f"({len(names)}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"


def _migrated(state: Any, path: str | Path) -> dict[str, Any]:
    version = state.get("format_version") if isinstance(state, dict) else None
    if type(version) is not int:
        raise CheckpointError(
            f"{path} is not a checkpoint of this program (no format_version); "
            "give a file of weights alone as MODEL.WEIGHTS"
        )
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {version}, newer than this program's {FORMAT_VERSION}; "
            "update fbnetv3"
        )
    while version < FORMAT_VERSION:
        if version not in MIGRATIONS:
            raise CheckpointError(
                f"{path} has format version {version}, older than this program's "
                f"{FORMAT_VERSION}, and cannot be migrated; load it with the release that wrote it"
            )
        state, version = MIGRATIONS[version](state), version + 1
    return {**state, "format_version": version}


def _torch_save(state: Any, temporary: Path, target: Path) -> None:
    try:
        with temporary.open("wb") as file:
            torch.save(state, file)
    except RuntimeError as error:  # of torch; its __context__ may be the OSError of the write
        cause = error.__context__
        if isinstance(cause, OSError):
            raise cause from None
        raise WriteError(
            f"cannot write {target}: {first_line(error)}; is the disk full?"
        ) from error


def _require_plain(value: Any, where: str) -> None:
    """Refuses what ``weights_only=True`` would refuse to load, before it is saved."""
    if isinstance(value, Tensor) or type(value) in _SCALARS:
        return
    if type(value) in (dict, OrderedDict):
        for key, item in value.items():
            _require_plain(key, f"a key of {where}")
            _require_plain(item, f"{where}[{key!r}]")
    elif type(value) in (list, tuple):
        for index, item in enumerate(value):
            _require_plain(item, f"{where}[{index}]")
    else:
        raise CheckpointError(
            f"{where} is a {type(value).__module__}.{type(value).__qualname__}; "
            "allowed in checkpoints: tensors, numbers, strings, lists, dicts"
        )


def export_weights(
    state_dict: Mapping[str, Tensor], path: str | Path, metadata: Mapping[str, str]
) -> None:
    """Writes weights as safetensors, completely or not at all.

    Args:
        state_dict: Tensors by name, such as ``ModelEMA.model_state_dict()``; tied weights are
            written once per name.
        path: The ``.safetensors`` file to write.
        metadata: Strings to store with the weights (arch yaml, classes, normalisation, recipe);
            ``format`` and ``format_version`` are added.

    Raises:
        CheckpointError: A value of the metadata is not a string.
        WriteError: The file cannot be written.
    """
    for key, value in metadata.items():
        if not isinstance(value, str):
            raise CheckpointError(
                f"weights metadata {key!r} is a {type(value).__name__}; allowed: text (use json)"
            )
    texts = {**metadata, "format": "fbnetv3", "format_version": str(FORMAT_VERSION)}
    tensors = {name: t.detach().cpu().clone().contiguous() for name, t in state_dict.items()}
    content = sorted_header(safetensors.torch.save(tensors, texts))
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)
