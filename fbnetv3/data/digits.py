"""scikit-learn's handwritten digits, a data set that needs no download."""

from __future__ import annotations

import numpy as np
from PIL import Image

from fbnetv3.data.dataset import ArrayDataset
from fbnetv3.requires import require

TEST_IMAGES = 360
RESOLUTION = 32  # pixels
_SPLIT_SEED = 0


def load_digits_split(split: str) -> ArrayDataset:
    """Returns a split of the digits: grey images in RGB, 32 x 32 pixels.

    The split is fixed and stratified. The original images have 8 x 8 pixels and are enlarged
    bilinearly.

    Args:
        split: Name of the split, ``train`` (1437 images) or ``test`` (360 images).

    Raises:
        MissingPackageError: scikit-learn is not installed.
        BrokenPackageError: Importing scikit-learn fails.
    """
    # Importing scikit-learn takes a second, and only this data set needs it.
    bunch = require("sklearn.datasets", "train").load_digits()
    parts = require("sklearn.model_selection", "train").train_test_split(
        np.arange(len(bunch.target)),
        test_size=TEST_IMAGES,
        stratify=bunch.target,
        random_state=_SPLIT_SEED,
    )
    indices = np.sort(parts[("train", "test").index(split)])
    # The original intensities are integers from 0 to 16.
    grey = np.round(bunch.images[indices] * (255 / 16)).astype(np.uint8)
    images = np.stack([_enlarge(g) for g in grey])
    return ArrayDataset(
        f"digits_{split}", [str(c) for c in range(10)], images, bunch.target[indices].tolist()
    )


def _enlarge(grey: np.ndarray) -> np.ndarray:
    size = (RESOLUTION, RESOLUTION)
    image = Image.fromarray(grey).resize(size, Image.Resampling.BILINEAR)
    return np.asarray(image.convert("RGB"))
