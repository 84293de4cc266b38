"""Checkpoints that survive a kill at any moment, and weights for exchange."""

from __future__ import annotations

import logging
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from fbnetv3.config import ConfigError
from fbnetv3.engine.rng import capture_rng, restore_rng
from fbnetv3.errors import FBNetError, first_line
from fbnetv3.io import WriteError, atomic_write
from fbnetv3.weights.errors import WeightsFileError
from fbnetv3.weights.files import refuse_packed

__all__ = [
    "FORMAT_VERSION",
    "MIGRATIONS",
    "CheckpointError",
    "Checkpointer",
    "capture_rng",
    "export_weights",
    "load_checkpoint",
    "load_model_state",
    "restore_rng",
]

FORMAT_VERSION = 1
Migration = Callable[[dict[str, Any]], dict[str, Any]]
MIGRATIONS: dict[int, Migration] = {}
"""version -> function that turns a state of that version into one of the next."""

_NAME = re.compile(r"checkpoint_(\d{8,})\.pt")
_SCALARS = (str, int, float, bool, bytes, type(None), torch.Size, torch.dtype, torch.device)
_log = logging.getLogger(__name__)


class CheckpointError(FBNetError):
    """A checkpoint or weights file is missing, damaged, foreign, unsafe or of another version."""


class Checkpointer:
    """Keeps the newest checkpoints of one run in a folder, as ``checkpoint_{iteration:08d}.pt``.

    A file appears under its name only when it is complete and on disk (``atomic_write``), and
    older ones are removed only after that. A state holds tensors and plain values only, so that
    it loads with ``weights_only=True``, and has these keys:

    - ``format_version``, ``iteration``: set by :meth:`save`; iteration is the next one to run
    - ``model``: state dict
    - ``ema``: ``ModelEMA.state_dict()``, or None
    - ``optimizer``, ``scheduler``: their state dicts
    - ``rng``: :func:`capture_rng`
    - ``data``: where the loader stands (seed; the order follows from it and the iteration)
    - ``recipe``: ``Recipe.to_dict()``; ``config``: yaml text; ``arch``: dict or yaml text
    - ``classes``: class names; ``task``: what the task keeps beside tensors

    Args:
        folder: made on the first save.
        keep: how many of the newest checkpoints stay; >= 1.
        migrations: version -> function to the next version; this module's by default.
        on_save: called with each checkpoint that has been written.

    Raises:
        CheckpointError: ``keep`` is below 1.
    """

    def __init__(
        self,
        folder: str | Path,
        keep: int = 2,
        migrations: Mapping[int, Migration] | None = None,
        on_save: Callable[[Path], None] | None = None,
    ) -> None:
        if keep < 1:
            raise CheckpointError(f"Checkpointer keep={keep!r} is out of range; allowed: >= 1")
        self.folder = Path(folder)
        self.keep = keep
        self.migrations = MIGRATIONS if migrations is None else migrations
        self._on_save = on_save

    def save(self, state: Mapping[str, Any], iteration: int) -> Path:
        """Writes a checkpoint and removes those beyond the newest ``keep``.

        Args:
            state: tensors and plain values, see the class.
            iteration: the next one to run; >= 0.

        Returns:
            The file.

        Raises:
            CheckpointError: the state holds something that would not load again.
            WriteError: no space or permission; earlier checkpoints are kept.
        """
        full = {**state, "format_version": FORMAT_VERSION, "iteration": int(iteration)}
        _require_plain(full, "state")
        path = self.folder / f"checkpoint_{iteration:08d}.pt"
        with atomic_write(path) as temporary:
            _torch_save(full, temporary, path)
        self._prune(path, iteration)
        if self._on_save is not None:
            self._on_save(path)
        return path

    def latest(self) -> Path | None:
        """Returns the newest complete checkpoint, or None; damaged ones are logged and skipped."""
        for _, path in reversed(self._files()):
            damage = _damage(path)
            if damage is None:
                return path
            _log.warning("skipped checkpoint %s: it %s", path, damage)
        return None

    def load(self, path: str | Path) -> dict[str, Any]:
        """Reads a checkpoint to CPU memory, brought to this program's format version.

        Raises:
            CheckpointError: the file is missing, damaged, no checkpoint of ours, holds code, or
                has a version that this program can't read.
        """
        return load_checkpoint(path, self.migrations)

    def _files(self) -> list[tuple[int, Path]]:
        if not self.folder.is_dir():
            return []
        found = [(_NAME.fullmatch(path.name), path) for path in self.folder.iterdir()]
        return sorted((int(match.group(1)), path) for match, path in found if match)

    def _prune(self, saved: Path, iteration: int) -> None:
        """Removes old checkpoints and what killed runs left; never ``saved``."""
        files = self._files()
        for _, path in [f for f in files if f[0] <= iteration][: -self.keep]:
            path.unlink(missing_ok=True)
        for _, path in [f for f in files if f[0] > iteration]:
            if _damage(path):  # else the next resume would stumble over it again
                path.unlink(missing_ok=True)
        for leftover in self.folder.glob(".checkpoint_*.pt.*"):
            leftover.unlink(missing_ok=True)


def load_checkpoint(
    path: str | Path, migrations: Mapping[int, Migration] | None = None
) -> dict[str, Any]:
    """Reads one checkpoint file; see :meth:`Checkpointer.load`."""
    damage = _damage(Path(path))
    if damage:
        raise CheckpointError(f"cannot load checkpoint {path}: it {damage}; use an earlier one")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"cannot load checkpoint {path}: it holds objects other than tensors and plain values "
            "(perhaps code), which are never loaded; use a file that this program wrote"
        ) from error
    except Exception as error:  # unpicklers raise anything on what is no pickle
        raise CheckpointError(
            f"cannot load checkpoint {path}: it is not a file of torch.save "
            f"({first_line(error)}); use a file that this program wrote"
        ) from error
    return _migrated(state, path, MIGRATIONS if migrations is None else migrations)


def load_model_state(model: nn.Module, state: Mapping[str, Any], classes: Sequence[str]) -> None:
    """Loads the weights of a checkpoint into a model.

    Args:
        model: The network to load into.
        state: State of a checkpoint, as :func:`load_checkpoint` returns it.
        classes: Class names of the data.

    Raises:
        ConfigError: The checkpoint was trained on other classes.
        CheckpointError: The checkpoint is of another network.
    """
    if list(state["classes"]) != list(classes):
        raise ConfigError(
            f"the checkpoint was trained on the classes {_some(state['classes'])}, the data has "
            f"{_some(classes)}; give the data set it was trained on, or another OUTPUT_DIR"
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


def _migrated(state: Any, path: str | Path, migrations: Mapping[int, Migration]) -> dict[str, Any]:
    version = state.get("format_version") if isinstance(state, dict) else None
    if type(version) is not int:
        raise CheckpointError(
            f"{path} is not a checkpoint of this program (no format_version); "
            "bare weights are given as MODEL.WEIGHTS"
        )
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {version}, newer than this program's {FORMAT_VERSION}; "
            "update fbnetv3"
        )
    while version < FORMAT_VERSION:
        if version not in migrations:
            raise CheckpointError(
                f"{path} has format version {version}, older than this program's "
                f"{FORMAT_VERSION}, and no migration from it is known; "
                "load it with the release that wrote it"
            )
        state, version = migrations[version](state), version + 1
    return {**state, "format_version": version}


def _damage(path: Path) -> str | None:
    """Returns what is wrong with a file of torch.save (a zip with checksums), or None."""
    try:
        refuse_packed(path)
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except FileNotFoundError:
        return "does not exist"
    except WeightsFileError:
        return "unpacks to more than it has, which torch.save never writes"
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError):
        return "is cut short or not a checkpoint"
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    return f"is damaged (checksum of {broken})" if broken else None


def _torch_save(state: Any, temporary: Path, target: Path) -> None:
    try:
        with temporary.open("wb") as file:
            torch.save(state, file)
    except RuntimeError as error:  # torch hides the OSError of a failed write in its own
        cause = error.__context__
        if isinstance(cause, OSError):
            raise cause from None
        raise WriteError(
            f"cannot write {target}: {first_line(error)}; is the disk full?"
        ) from error


def _require_plain(value: Any, where: str) -> None:
    """Refuses what ``weights_only=True`` would refuse, while the run can still be mended."""
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
    """Writes weights as safetensors, under the model's names, at once or not at all.

    Args:
        state_dict: e.g. ``ModelEMA.model_state_dict()``; tied weights are written per name.
        path: the file, ``.safetensors``.
        metadata: texts that travel along (arch yaml, classes, normalisation, recipe); ``format``
            and ``format_version`` are added.

    Raises:
        CheckpointError: a metadata value is not a text.
        WriteError: the file can't be written.
    """
    for key, value in metadata.items():
        if not isinstance(value, str):
            raise CheckpointError(
                f"weights metadata {key!r} is a {type(value).__name__}; allowed: text (use json)"
            )
    texts = {**metadata, "format": "fbnetv3", "format_version": str(FORMAT_VERSION)}
    tensors = {name: t.detach().cpu().clone().contiguous() for name, t in state_dict.items()}
    content = safetensors.torch.save(tensors, texts)
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)
