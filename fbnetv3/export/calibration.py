"""Calibration images, on which the ranges of activations are measured for 8-bit integers."""

from __future__ import annotations

from fbnetv3.export.errors import ExportError
from fbnetv3.export.job import Job, Pixels

MIN_IMAGES = 32
"""Smallest number of calibration images."""
BATCH = 32
"""Default number of images per batch."""


def calibration_batches(job: Job, name: str, size: int = BATCH) -> list[Pixels]:
    """Returns the calibration images of a job in batches of shape (N, 3, H, W).

    Args:
        job: Network to write, with its calibration images.
        name: Name of the format, for the message.
        size: Images per batch; the last batch may have fewer.

    Raises:
        ExportError: There are too few images.
    """
    pixels = job.calibration
    if pixels is None or len(pixels) < MIN_IMAGES:
        number = 0 if pixels is None else len(pixels)
        raise ExportError(
            f"{name} measures ranges on images of the training set, and got {number}; allowed: "
            f"{MIN_IMAGES} or more; name a data set with --calibration"
        )
    return [pixels[start : start + size] for start in range(0, len(pixels), size)]
