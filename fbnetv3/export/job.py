"""The input of a format's writer, and the type of the function that its loader returns."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from fbnetv3.export.network import ExportNetwork

Pixels = npt.NDArray[np.float32] | npt.NDArray[np.uint8]
Run = Callable[[Pixels], npt.NDArray[np.float32]]
"""Function that runs an exported file: pixels (N, 3, H, W) to logits (N, classes)."""
INPUT, OUTPUT = "images", "logits"
"""Names of the input and the output in formats that name them."""
MAX_BATCH = 4096
"""Largest batch of a ``pt2`` file, as declared to torch.export."""


@dataclass(frozen=True)
class Job:
    """A network to write, with what writers need.

    Attributes:
        network: Network to write.
        example: Input (N, 3, H, W) that the network is traced with, N >= 2.
        metadata: Strings to store in the file, or beside it if the format has no place for them.
        calibration: Pixels (N, 3, H, W), as the network takes them, on which the ranges of
            activations are measured for 8-bit integers. None: none were given.
    """

    network: ExportNetwork
    example: Tensor
    metadata: Mapping[str, str]
    calibration: Pixels | None = None


def missing_packages(*packages: str, extra: str) -> str:
    """Returns which of the packages are missing and how to install them; "" if none is.

    Args:
        packages: Names of top-level modules.
        extra: Extra of fbnetv3 that installs them.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if not missing:
        return ""
    return f"{' and '.join(missing)} not installed: pip install 'fbnetv3[{extra}]'"
