"""Optional packages: a one-line error names the extra that installs a missing package."""

from __future__ import annotations

import importlib
import warnings
from types import ModuleType

from fbnetv3.errors import FBNetError


class MissingPackageError(FBNetError):
    """An optional package is not installed."""


def require(module: str, extra: str) -> ModuleType:
    """Imports a module of an optional package.

    Args:
        module: Dotted name of the module, such as ``optuna`` or ``matplotlib.figure``.
        extra: Extra of fbnetv3 that installs the package, such as ``search``.

    Returns:
        The module.

    Raises:
        MissingPackageError: The package is not installed; the message names the extra.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if (error.name or "").partition(".")[0] != package:
            raise  # the package is there, and lacks something itself
        raise MissingPackageError(
            f"{package} is not installed; install it with: pip install 'fbnetv3[{extra}]'"
        ) from error


def require_detectron2() -> None:
    """Imports detectron2 without the deprecation warnings of its dependencies.

    Raises:
        MissingPackageError: detectron2 is not installed; the message says how to install it.
    """
    try:
        with warnings.catch_warnings():
            # fvcore scripts two losses on import, which torch calls deprecated
            warnings.filterwarnings("ignore", message=".*torch.jit.script", category=FutureWarning)
            import detectron2.engine  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(
            "detectron2 is not installed; run fbnetv3-install-detectron2 (or "
            "tools/install_detectron2.py) in this environment"
        ) from error
