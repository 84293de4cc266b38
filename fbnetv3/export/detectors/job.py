"""The input of the functions that write detectors, and the type of those that run them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from fbnetv3.export.detectors.network import DetectorNetwork
from fbnetv3.export.job import Pixels

OUTPUTS = ("boxes", "scores", "classes")
"""Names of the outputs in formats that name them."""


class Boxes(NamedTuple):
    """The detected objects of an image, by descending score.

    Attributes:
        boxes: (N, 4) left, top, right and bottom in pixels.
        scores: (N,) confidence in [0, 1].
        classes: (N,) indices of classes.
    """

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]


RunDetector = Callable[[Pixels], Boxes]
"""Function that runs an exported file: pixels (1, 3, H, W) to boxes in pixels of this input."""


@dataclass(frozen=True)
class DetectorJob:
    """A detector to write, with what writers need.

    Attributes:
        network: Network to write.
        example: Input (1, 3, H, W) that the network is traced with.
        metadata: Strings to store in the file.
        calibration: Inputs (1, 3, H, W) on which the ranges of activations are measured for 8-bit
            integers; float32 formats need none.
    """

    network: DetectorNetwork
    example: Tensor
    metadata: Mapping[str, str]
    calibration: Sequence[Pixels] = ()
