"""The folder ``model_zoo`` of packaged configs and weights.

It is next to this file in an installed wheel, and in the root of a source checkout.
"""

from __future__ import annotations

import os
from pathlib import Path

from fbnetv3.errors import FBNetError, did_you_mean

_PACKAGE = Path(__file__).resolve().parent


class ConfigNotFoundError(FBNetError):
    """A config exists neither as a file nor in ``model_zoo``, or that folder is missing."""


def model_zoo_path() -> Path:
    """Returns the folder of the packaged configs and weights.

    Raises:
        ConfigNotFoundError: The installation has no such folder.
    """
    for folder in (_PACKAGE / "model_zoo", _PACKAGE.parent / "model_zoo"):
        if folder.is_dir():
            return folder
    raise ConfigNotFoundError(
        f"{_PACKAGE} has no model_zoo; reinstall fbnetv3 from a wheel or a source checkout"
    )


def list_configs() -> list[str]:
    """Returns the paths of the packaged configs in the model zoo, such as ``fbnetv3_g.yaml``."""
    root = model_zoo_path()
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*.yaml"))


def find_config(name: str | os.PathLike[str]) -> Path:
    """Returns the path of a config file.

    Args:
        name: Path of an existing file, or name of a config in the model zoo, such as
            ``fbnetv3_g.yaml`` or ``model_zoo/fbnetv3_g.yaml``. Names work from any working
            directory, even if only the wheel is installed.

    Raises:
        ConfigNotFoundError: There is no such file, and the message lists similar names if there are
            any; or the installation has no ``model_zoo``.
    """
    path = Path(name)
    if path.is_file():
        return path
    parts = path.parts[1:] if path.parts[:1] == ("model_zoo",) else path.parts
    packaged = model_zoo_path().joinpath(*parts)
    if packaged.is_file():
        return packaged
    hint = did_you_mean(Path(*parts).as_posix(), list_configs())
    raise ConfigNotFoundError(
        f"config {os.fspath(name)!r} is neither a file nor in {model_zoo_path()}{hint}"
    )
