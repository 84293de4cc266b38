"""The folder of the weights that come with the package. This module does not import torch."""

from __future__ import annotations

from pathlib import Path

from fbnetv3.resources import model_zoo_path


def package_dir() -> Path:
    """Returns the folder of packaged weights, in an installed package or in a source checkout."""
    return model_zoo_path() / "weights"


def missing_weights(path: Path) -> str:
    """Returns the error message for packaged weights that are not installed."""
    return f"weights {path} are missing, as a wheel leaves out some files; {copy_weights(path)}"


def copy_weights(path: Path) -> str:
    """Returns the end of an error message about packaged weights: where to get the file."""
    return f"copy model_zoo/weights/{path.name} of the repository to this path"
