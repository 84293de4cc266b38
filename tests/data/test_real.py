"""Real data sets below FBNETV3_DATA."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch

from fbnetv3.data import (
    EvalLoader,
    EvalTransform,
    TrainLoader,
    TrainTransform,
    build_dataset,
    check_same_classes,
    find_broken,
)

CIFAR_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse"]
CIFAR_CLASSES += ["ship", "truck"]
# Published statistics of the training images of CIFAR-10 per channel.
CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


@pytest.fixture
def real(data_root, monkeypatch):
    def open_set(name: str, folder: str):
        if not (data_root / folder).exists():
            pytest.skip(f"{data_root / folder} is missing")
        monkeypatch.setenv("FBNETV3_DATA", str(data_root))
        return build_dataset(name)

    return open_set


def test_cifar10(real):
    train, test = real("cifar10_train", "cifar10"), real("cifar10_test", "cifar10")
    assert (len(train), len(test)) == (50_000, 10_000)
    assert train.classes == CIFAR_CLASSES
    assert set(Counter(train.targets).values()) == {5000}
    check_same_classes(train, test)
    loader = EvalLoader(
        test.subset(2000), EvalTransform(32, mean=CIFAR_MEAN, std=CIFAR_STD), batch_size=500
    )
    images = torch.cat([x for x, _ in loader])
    assert images.mean((0, 2, 3)).abs().max() < 0.06
    assert (images.std((0, 2, 3)) - 1).abs().max() < 0.06


def test_cifar10_batches_with_workers(real):
    dataset = real("cifar10_test", "cifar10")
    transform = TrainTransform(32, crop="padded")
    streams = [
        list(
            islice(
                TrainLoader(dataset, transform, total_batch=128, seed=3, num_workers=w).batches(76),
                4,
            )
        )
        for w in (0, 2)
    ]
    for (x, y), (p, q) in zip(*streams, strict=True):
        assert torch.equal(x, p)
        assert torch.equal(y, q)


def test_imagenette(real):
    train = real("imagenette_train", "imagenette_mini")
    val = real("imagenette_val", "imagenette_mini")
    assert (len(train), len(val), len(train.classes)) == (700, 250, 10)
    check_same_classes(train, val)
    assert find_broken(val) == {}
    grey = [i for i in range(250) if np.ptp(np.asarray(val.load(i)[0]), axis=2).max() == 0]
    assert len(grey) >= 4
    loader = TrainLoader(
        train, TrainTransform(224, auto_augment="imagenet"), total_batch=16, seed=0
    )
    images, _ = next(loader.batches(0))
    assert images.shape == (16, 3, 224, 224)
