"""Batches of images."""

import numpy as np
import pytest
import torch
from PIL import Image

from fbnetv3.data import DataError, TrainTransform
from fbnetv3.data.dataset import ArrayDataset
from fbnetv3.data.image_batches import image_loader
from fbnetv3.data.loaders import TrainLoader


class _Growing(TrainTransform):
    """A faulty transform whose results have different sizes."""

    def __init__(self) -> None:
        super().__init__(8)
        self._side = 0

    def pixels(self, image: Image.Image) -> np.ndarray:
        self._side += 1
        return np.zeros((self._side, 1, 3), dtype=np.uint8)


def _dataset() -> ArrayDataset:
    images = np.random.RandomState(0).randint(0, 256, (8, 16, 16, 3)).astype(np.uint8)
    return ArrayDataset("x", ["a"], images, [0] * 8)


def test_images_of_different_shapes_are_refused():
    load = image_loader(_dataset(), _Growing(), uint8=True)
    with pytest.raises(DataError, match=r"shapes \(1, 1, 3\) and \(2, 1, 3\)"):
        load([(0, 0), (1, 0)])


def test_workers_put_the_same_batches_into_shared_memory():
    transform = TrainTransform(8, auto_augment="imagenet")
    batches = [
        next(
            TrainLoader(
                _dataset(), transform, total_batch=4, seed=0, num_workers=workers, uint8=True
            ).batches()
        )
        for workers in (0, 1)
    ]
    assert torch.equal(batches[0][0], batches[1][0])
    assert not batches[0][0].is_shared()
    assert batches[1][0].is_shared()
