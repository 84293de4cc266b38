"""Optional packages: a one-line error names the extra that installs a missing package.

A light installation (``pip install fbnetv3``) has the packages for building networks, loading their
weights and predicting images. Code that needs other packages calls :func:`require`, or is imported
inside of :func:`naming_extras`, like the commands and the public names of ``fbnetv3`` and
``fbnetv3.search``.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import warnings
from collections.abc import Iterator, Mapping
from types import ModuleType

from fbnetv3.errors import FBNetError, first_line

EXTRA_OF: Mapping[str, str] = {
    **dict.fromkeys(("cloudpickle", "fsspec", "optuna", "scipy", "sqlalchemy"), "search"),
    **dict.fromkeys(("fvcore", "hydra", "iopath", "omegaconf", "pycocotools", "yacs"), "train"),
    **dict.fromkeys(("patch_ng", "simplejpeg", "sklearn", "tabulate", "tensorboard"), "train"),
    "termcolor": "train",
    "faster_coco_eval": "detection",
    **dict.fromkeys(("jinja2", "markupsafe", "matplotlib"), "report"),
    **dict.fromkeys(("onnx", "onnxruntime"), "export"),
}
"""Packages that files import at their top or on first use, and the extra that installs each."""
_INSTALL_DETECTRON2 = (
    "run fbnetv3-install-detectron2 (or tools/install_detectron2.py) in this environment"
)


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
        MissingPackageError: The package, or a package of ``EXTRA_OF`` that it imports, is not
            installed; the message contains the extra.
        BrokenPackageError: Importing it fails for another reason; the message has the first line of
            the cause.
    """
    return _imported(module, _install(extra))


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
        raise _missing(package, _install(extra))


def require_detectron2() -> None:
    """Imports detectron2 without warnings of the deprecated torch.jit.script, which it calls.

    Raises:
        MissingPackageError: detectron2, or a package of ``EXTRA_OF`` that it imports, is not
            installed; the message says how to install it.
        BrokenPackageError: Importing it fails for another reason; the message has the first line of
            the cause.
    """
    with quiet_detectron2():
        _imported("detectron2.engine", _INSTALL_DETECTRON2)


@contextlib.contextmanager
def quiet_detectron2() -> Iterator[None]:
    """Hides warnings of the deprecated torch.jit.script while detectron2 is imported.

    fvcore and detectron2 call torch.jit.script when they are imported.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.script", category=FutureWarning)
        yield


@contextlib.contextmanager
def naming_extras() -> Iterator[None]:
    """Turns failed imports of optional packages into errors that name the extra to install.

    Raises:
        MissingPackageError: A package of ``EXTRA_OF`` or detectron2 is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package == "detectron2":
            raise _missing(package, _INSTALL_DETECTRON2) from error
        if package in EXTRA_OF:
            raise _missing(package, _install(EXTRA_OF[package])) from error
        raise


def _install(extra: str) -> str:
    return f"install it with: pip install 'fbnetv3[{extra}]'"


def _missing(package: str, how_to_install: str) -> MissingPackageError:
    return MissingPackageError(f"{package} is not installed; {how_to_install}")


def _imported(module: str, how_to_install: str) -> ModuleType:
    package = module.partition(".")[0]
    try:
        importlib.import_module(package)
        return importlib.import_module(module)
    except Exception as error:  # incompatible libraries raise errors of every kind
        if isinstance(error, ModuleNotFoundError) and error.name == package:
            raise _missing(package, how_to_install) from error
        missing = getattr(error, "name", None) or ""
        if isinstance(error, ModuleNotFoundError) and missing in EXTRA_OF:
            # for example, detectron2 is installed without the packages of the extra train
            raise _missing(missing, _install(EXTRA_OF[missing])) from error
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
