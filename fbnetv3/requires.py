"""Optional packages: a one-line error names the extra that installs a missing package."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from types import ModuleType

from fbnetv3.errors import FBNetError, first_line


class MissingPackageError(FBNetError):
    """An optional package is not installed."""


class BrokenPackageError(FBNetError):
    """A package is installed, but importing it fails."""


def require(module: str, extra: str) -> ModuleType:
    """Imports a module of an optional package.

    Args:
        module: Dotted name of the module, such as ``optuna`` or ``matplotlib.figure``.
        extra: Extra of fbnetv3 that installs the package, such as ``search``.

    Returns:
        The module.

    Raises:
        MissingPackageError: The package is not installed; the message contains the extra.
        BrokenPackageError: Importing it fails; the message has the first line of the cause.
    """
    return _imported(module, f"install it with: pip install 'fbnetv3[{extra}]'")


def require_installed(package: str, extra: str) -> None:
    """Checks that an optional package is installed, without importing it.

    Commands call it before they import torch and read data.

    Args:
        package: Name of a top-level package.
        extra: Extra of fbnetv3 that installs it.

    Raises:
        MissingPackageError: The package is not installed; the message contains the extra.
    """
    if importlib.util.find_spec(package) is None:
        raise MissingPackageError(
            f"{package} is not installed; install it with: pip install 'fbnetv3[{extra}]'"
        )


def require_detectron2() -> None:
    """Imports detectron2 without the deprecation warnings of its dependencies.

    Raises:
        MissingPackageError: detectron2 is not installed; the message says how to install it.
        BrokenPackageError: Importing it fails; the message has the first line of the cause.
    """
    with warnings.catch_warnings():
        # on import, fvcore calls torch.jit.script, which is deprecated, for two losses
        warnings.filterwarnings("ignore", message=".*torch.jit.script", category=FutureWarning)
        _imported(
            "detectron2.engine",
            "run fbnetv3-install-detectron2 (or tools/install_detectron2.py) in this environment",
        )


def _imported(module: str, how_to_install: str) -> ModuleType:
    package = module.partition(".")[0]
    try:
        importlib.import_module(package)
        return importlib.import_module(module)
    except Exception as error:  # incompatible libraries raise errors of every kind
        if isinstance(error, ModuleNotFoundError) and error.name == package:
            raise MissingPackageError(f"{package} is not installed; {how_to_install}") from error
        raise BrokenPackageError(
            f"{package} is installed, but importing it failed ({type(error).__name__}: "
            f"{first_line(error)}); {_remedy(error, how_to_install)}"
        ) from error


def _remedy(error: Exception, how_to_install: str) -> str:
    text = str(error).lower()
    # messages of the dynamic linker and of the operating system
    lacks_memory = "failed to map" in text or "cannot allocate memory" in text
    if isinstance(error, MemoryError) or lacks_memory:
        return "the memory is full: free some (or raise its limit) and try again"
    return f"the installation is damaged or does not fit this environment: {how_to_install}"
