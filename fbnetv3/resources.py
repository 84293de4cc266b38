"""Where the packaged configs lie: beside this file in a wheel, in ``model_zoo/`` of a checkout."""

from __future__ import annotations

import os
from pathlib import Path

from fbnetv3.errors import FBNetError, did_you_mean

_PACKAGE = Path(__file__).resolve().parent


class ConfigNotFoundError(FBNetError):
    """No config of this name exists, neither as a file nor in the model zoo."""


def model_zoo_path() -> Path:
    """Returns the folder of the packaged configs, of a wheel or of a source checkout.

    Raises:
        ConfigNotFoundError: The installation lacks it.
    """
    for folder in (_PACKAGE / "model_zoo", _PACKAGE.parent / "model_zoo"):
        if folder.is_dir():
            return folder
    raise ConfigNotFoundError(
        f"{_PACKAGE} lacks its model_zoo; reinstall fbnetv3 from a wheel or a checkout"
    )


def list_configs() -> list[str]:
    """Returns the packaged configs, relative to the model zoo, such as ``fbnetv3_g.yaml``."""
    root = model_zoo_path()
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*.yaml"))


def find_config(name: str | os.PathLike[str]) -> Path:
    """Returns the config file that ``name`` means.

    Args:
        name: An existing file, or a config of the model zoo: ``model_zoo/fbnetv3_g.yaml`` or
            ``fbnetv3_g.yaml`` work from any folder, with only the wheel installed too.

    Raises:
        ConfigNotFoundError: There is no such file; the message lists close names.
    """
    path = Path(name)
    if path.is_file():
        return path
    parts = path.parts[1:] if path.parts[:1] == ("model_zoo",) else path.parts
    packaged = model_zoo_path().joinpath(*parts)
    if packaged.is_file():
        return packaged
    close = did_you_mean(Path(*parts).as_posix(), list_configs())
    raise ConfigNotFoundError(
        f"config {os.fspath(name)!r} is no file here and not in {model_zoo_path()}{close}"
    )
