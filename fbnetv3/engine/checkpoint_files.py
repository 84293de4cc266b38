"""The files of checkpoints: their names in a folder, and whether they are intact."""

from __future__ import annotations

import errno
import os
import pickle
import stat
import zipfile
from pathlib import Path

import torch

from fbnetv3.errors import first_line
from fbnetv3.weights.errors import WeightsFileError
from fbnetv3.weights.files import refuse_compressed


def names_in(folder: Path) -> list[str]:
    """Lists the names in a folder; [] if there is no such folder.

    Raises:
        OSError: The folder cannot be read.
    """
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


def damage(path: Path) -> str | None:
    """Describes why a file of torch.save cannot be loaded; None if it is intact."""
    try:
        return _damage_of_content(path)
    except FileNotFoundError:
        return "does not exist"
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    except MemoryError:
        return "cannot be read (not enough memory)"


def is_surely_damaged(path: Path) -> bool:
    """Returns whether the content of a file is damaged, rather than out of reach for now."""
    try:
        return _damage_of_content(path) is not None
    except (OSError, MemoryError):
        return False


def _damage_of_content(path: Path) -> str | None:
    """Describes the damage of a file of torch.save (a zip with checksums); None if it is intact.

    The checksums cover the content, and torch.load checks the headers (``mmap=True``: without
    reading the content again). Reading the zip and loading can both raise errors of any type on
    damaged headers.

    Raises:
        OSError: The file cannot be read, which says nothing of its content.
        MemoryError: The memory is full.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError("not a regular file")
    try:
        refuse_compressed(path)
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken:
            return f"is damaged (wrong checksum of {broken!r})"
    except WeightsFileError:
        return "unpacks to more than its own size, which files of torch.save never do"
    except (OSError, MemoryError) as error:
        if getattr(error, "errno", None) != errno.EINVAL:  # a damaged header led to no position
            raise
        return "is cut short or not a checkpoint"
    except Exception:
        return "is cut short or not a checkpoint"
    try:
        torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError:
        return None  # intact, but refused by load_checkpoint
    except (OSError, MemoryError):
        raise
    except Exception as error:
        return f"is damaged, or was not written by torch.save ({first_line(error)})"
    return None
