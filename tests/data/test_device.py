"""Batches of uint8: normalised as before, and copied to a device in a stream of its own."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import islice

import pytest
import torch

from fbnetv3.data import (
    DataError,
    EvalLoader,
    EvalTransform,
    LoaderOptions,
    Normalize,
    TrainLoader,
    TrainTransform,
)
from fbnetv3.data import loaders as loaders_module
from fbnetv3.data.device import BatchToDevice

MEAN, STD = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)


def test_normalised_uint8_batches_are_those_of_float(noise):
    dataset, normalize = noise(20), Normalize(MEAN, STD)
    train = TrainTransform(16, MEAN, STD, crop="padded", auto_augment="cifar10")
    evaluate = EvalTransform(16, mean=MEAN, std=STD)
    streams = [
        [
            *islice(TrainLoader(dataset, train, total_batch=8, seed=0, uint8=uint8).batches(), 3),
            *EvalLoader(dataset, evaluate, batch_size=8, uint8=uint8),
        ]
        for uint8 in (False, True)
    ]
    for (images, labels), (pixels, same_labels) in zip(*streams, strict=True):
        assert pixels.dtype == torch.uint8
        assert pixels.is_contiguous(memory_format=torch.channels_last)
        result = normalize(pixels)
        assert torch.equal(result, images)
        assert result.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(labels, same_labels)


def test_normalisation_leaves_its_input_alone():
    images = torch.rand(2, 3, 4, 4)
    before = images.clone()
    assert not torch.equal(Normalize(MEAN, STD)(images), before)
    assert torch.equal(images, before)


def test_uint8_needs_a_transform_to_pixels(noise):
    with pytest.raises(DataError, match="batches of uint8 need an ImageTransform"):
        TrainLoader(noise(8), lambda image: torch.zeros(3, 1, 1), total_batch=4, seed=0, uint8=True)


@pytest.mark.parametrize("workers", [0, 2])
def test_options_reach_the_workers(noise, workers, monkeypatch):
    created = []

    class Recorded(torch.utils.data.DataLoader):
        def __init__(self, *args, **kwargs):
            created.append(kwargs)
            super().__init__(*args, **kwargs | {"pin_memory": False})

    monkeypatch.setattr(loaders_module, "DataLoader", Recorded)
    options = LoaderOptions(prefetch=3, persistent=False, pin_memory=True)
    transform = TrainTransform(16)
    loader = TrainLoader(
        noise(8), transform, total_batch=4, seed=0, num_workers=workers, options=options
    )
    next(loader.batches())
    EvalLoader(noise(8), transform, batch_size=4, num_workers=workers, options=options)
    for kwargs in created:
        assert kwargs["prefetch_factor"] == (3 if workers else None)
        assert kwargs["persistent_workers"] is False
        assert kwargs["pin_memory"] is True
    assert len(created) == 2


def test_prefetch_out_of_range():
    with pytest.raises(DataError, match="to prefetch are 0; allowed: 1 or more"):
        LoaderOptions(prefetch=0)


class _Stream:
    """A CUDA stream that records what is done with it."""

    def __init__(self, log, name):
        self.log, self.name = log, name

    def wait_stream(self, other):
        self.log.append(f"{self.name} waits for {other.name}")


class _Tensor:
    def __init__(self, log):
        self.log = log

    def to(self, device, non_blocking):
        self.log.append(f"copy to {device}, non_blocking {non_blocking}")
        return self

    def record_stream(self, stream):
        self.log.append(f"used by {stream.name}")


def test_copies_to_cuda_run_beside_the_step_before(monkeypatch):
    log = []

    @contextmanager
    def entered(stream):
        log.append(f"enter {stream.name}")
        yield
        log.append(f"leave {stream.name}")

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: _Stream(log, "copies"))
    monkeypatch.setattr(torch.cuda, "stream", entered)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: _Stream(log, "step"))
    BatchToDevice(torch.device("cuda:1"))([_Tensor(log)])
    assert log == [
        "enter copies",
        "copy to cuda:1, non_blocking True",
        "leave copies",
        "step waits for copies",
        "used by step",
    ]


def test_a_cpu_needs_no_copies():
    tensor = torch.zeros(2)
    assert BatchToDevice(torch.device("cpu"))([tensor])[0] is tensor
