"""Loaders: batches by seed and iteration, ranks, workers, random states, errors."""

from __future__ import annotations

import multiprocessing
import os
import random
import subprocess
from itertools import islice

import numpy as np
import pytest
import torch

from fbnetv3.data import DataError, EvalLoader, EvalTransform, TrainLoader, TrainTransform
from fbnetv3.data import build_dataset as build
from fbnetv3.data.order import EpochOrder

TRANSFORM = TrainTransform(16, crop="padded", auto_augment="cifar10")


def _take(loader: TrainLoader, n: int, start: int = 0):
    return list(islice(loader.batches(start), n))


def _same(a, b) -> bool:
    return len(a) == len(b) and all(
        torch.equal(x, p) and torch.equal(y, q) for (x, y), (p, q) in zip(a, b, strict=True)
    )


def _train(dataset, transform=TRANSFORM, total_batch=8, seed=0, **options) -> TrainLoader:
    return TrainLoader(dataset, transform, total_batch=total_batch, seed=seed, **options)


def _numpy_state() -> np.ndarray:
    return np.random.get_state()[1].copy()  # noqa: NPY002 - the test is about the global state


class _Numbered:
    """Keeps the first channel, which holds the image's index, and draws a random second one."""

    def __call__(self, image):
        pixels = torch.tensor(np.asarray(image), dtype=torch.float32).permute(2, 0, 1)
        pixels[1] = torch.rand(())
        return pixels


@pytest.fixture
def numbered(noise):
    dataset = noise(50, 4)
    dataset._images[:, 0, 0, 0] = np.arange(50)
    return dataset


def test_shapes_and_memory_format_of_batches(noise):
    ((images, labels),) = _take(_train(noise(20)), 1)
    assert images.shape == (8, 3, 16, 16)
    assert images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert labels.shape == (8,)
    assert labels.dtype == torch.int64


def test_any_callable_can_be_the_transform(numbered):
    ((images, labels),) = _take(_train(numbered, _Numbered()), 1)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert [int(i) % 4 for i in images[:, 0, 0, 0]] == labels.tolist()


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_depend_on_workers(noise, workers):
    dataset = noise(50)
    expected = _take(_train(dataset), 15)
    assert _same(_take(_train(dataset, num_workers=workers), 15), expected)


@pytest.mark.parametrize(
    ("workers", "balance", "repeats"), [(0, 0, 1), (2, 0, 1), (0, 1, 1), (2, 1, 1), (0, 0.5, 3)]
)
def test_the_joined_batches_of_ranks_are_those_of_one_process(noise, workers, balance, repeats):
    dataset = noise(50)
    order = EpochOrder(50, 0, targets=dataset.targets, balance=balance, repeats=repeats)
    expected = _take(_train(dataset, order=order), 9)
    options = {"world_size": 2, "num_workers": workers, "order": order}
    ranks = [_take(_train(dataset, rank=r, **options), 9) for r in range(2)]
    joined = [
        (torch.cat([a[0], b[0]]), torch.cat([a[1], b[1]])) for a, b in zip(*ranks, strict=True)
    ]
    assert _same(joined, expected)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("start", [1, 5, 6, 7, 13])
def test_batches_from_a_later_start_are_the_same(noise, start, workers):
    dataset = noise(50)  # 6 iterations per epoch
    whole = _take(_train(dataset), 16)
    assert _same(_take(_train(dataset, num_workers=workers), 16 - start, start), whole[start:])


def test_earlier_batches_are_not_read(noise):
    dataset = noise(50)
    dataset.image = _Counting(dataset.image)
    _take(_train(dataset), 1, start=10**9)
    assert dataset.image.calls == 8


class _Counting:
    def __init__(self, function):
        self.function, self.calls = function, 0

    def __call__(self, i):
        self.calls += 1
        return self.function(i)


def test_an_epoch_visits_each_image_at_most_once_and_epochs_differ(numbered):
    loader = _train(numbered, _Numbered())
    assert loader.iters_per_epoch == 6
    batches = _take(loader, 12)
    seen = [[int(i) for x, _ in batches[e : e + 6] for i in x[:, 0, 0, 0]] for e in (0, 6)]
    for epoch in seen:
        assert len(epoch) == len(set(epoch)) == 48
    assert seen[0] != seen[1]


def test_draws_are_keyed_by_seed_epoch_and_image(numbered):
    def draws(seed: int, total_batch: int, n: int) -> dict[tuple[int, int], float]:
        loader = _train(numbered, _Numbered(), seed=seed, total_batch=total_batch)
        values = {}
        for k, (images, _) in enumerate(_take(loader, n)):
            for image in images:
                values[k // loader.iters_per_epoch, int(image[0, 0, 0])] = float(image[1, 0, 0])
        return values

    small, large = draws(0, 5, 20), draws(0, 25, 4)
    assert small == large  # the draws of an image do not depend on its batch
    assert len(set(small.values())) == 100  # but on its index and on the epoch
    assert not set(small.values()) & set(draws(1, 5, 20).values())


@pytest.mark.parametrize("workers", [0, 1])
def test_global_random_states_are_untouched(noise, workers):
    torch.manual_seed(123)
    states = torch.get_rng_state(), random.getstate(), _numpy_state()
    _take(_train(noise(50), num_workers=workers), 8)
    evaluation = EvalLoader(noise(20), TRANSFORM, batch_size=8, num_workers=workers)
    for _ in range(2):
        list(evaluation)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.array_equal(_numpy_state(), states[2])


def test_global_random_state_does_not_change_the_batches(noise):
    torch.manual_seed(1)
    first = _take(_train(noise(20)), 3)
    torch.manual_seed(2)
    assert _same(_take(_train(noise(20)), 3), first)


def test_the_random_state_is_restored_after_an_error(files, tree):
    dataset = build(str(tree(files | {"cat/0.jpg": b"x"})))
    state = torch.get_rng_state()
    with pytest.raises(DataError):
        _take(_train(dataset, total_batch=9), 1)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_error_of_a_broken_file_is_one_line_with_its_name(files, archive, workers):
    dataset = build(str(archive(files | {"dog/2.jpg": files["dog/2.jpg"][:200]})))
    with pytest.raises(DataError, match=r"^/.*set\.zip/dog/2\.jpg: ") as caught:
        _take(_train(dataset, total_batch=3, num_workers=workers), 3)
    assert "\n" not in str(caught.value)


class _Dies:
    def __call__(self, image):
        os._exit(7)


def test_a_worker_that_dies_is_reported(noise):
    with pytest.raises(DataError, match=r"data worker died.*NUM_WORKERS 0") as caught:
        _take(_train(noise(20), _Dies(), num_workers=1), 1)
    assert "\n" not in str(caught.value)


class _Threads:
    def __call__(self, image):
        return torch.full((3, 1, 1), torch.get_num_threads())


def test_workers_have_one_thread_each(noise):
    ((images, _),) = _take(_train(noise(20), _Threads(), num_workers=1), 1)
    assert images.unique().tolist() == [1]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("n", "world", "batch"), [(50, 1, 16), (50, 3, 7), (2, 3, 4), (48, 2, 8)])
def test_evaluation_reads_every_image_once_over_all_ranks(noise, n, world, batch, workers):
    dataset = noise(n, 4)
    dataset._images[:, 0, 0, 0] = np.arange(n)
    seen = []
    for rank in range(world):
        loader = EvalLoader(
            dataset, _Numbered(), batch_size=batch, num_workers=workers, rank=rank, world_size=world
        )
        batches = list(loader)
        assert len(loader) == len(batches)
        indices = [int(i) for x, _ in batches for i in x[:, 0, 0, 0]]
        assert indices == list(range(rank, n, world))
        assert loader.num_images == len(indices)
        assert [y for _, labels in batches for y in labels.tolist()] == [i % 4 for i in indices]
        seen += indices
    assert sorted(seen) == list(range(n))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_evaluation_after_an_interrupted_one_is_complete(noise, workers):
    loader = EvalLoader(noise(20), EvalTransform(16), batch_size=6, num_workers=workers)
    first = list(loader)
    next(iter(loader))
    assert _same(list(loader), first)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: _train(d, total_batch=9, world_size=2), "size is 9; allowed with 2 processes"),
        (lambda d: _train(d, total_batch=0), "the batch size is 0"),
        (lambda d: _train(d, total_batch=32), r"noise has 20 images, fewer than one batch \(32\)"),
        (lambda d: _train(d, rank=2, world_size=2), "the rank is 2; allowed: 0 to 1"),
        (lambda d: _train(d, num_workers=-1), "the number of data workers is -1"),
        (lambda d: _train(d).batches(-1), "start_iter is -1"),
        (lambda d: EvalLoader(d, TRANSFORM, batch_size=0), "the batch size is 0"),
    ],
)
def test_errors_of_values_out_of_range(noise, make, message):
    with pytest.raises(DataError, match=message):
        make(noise(20))


def test_workers_heed_sigterm_of_their_parent_alone(noise):
    """Batch systems send SIGTERM to all processes of a job, which then saves and ends."""
    batches = _train(noise(50), num_workers=1).batches()
    next(batches)
    worker = multiprocessing.active_children()[-1]
    subprocess.run(["kill", "-TERM", str(worker.pid)], check=True)
    for _ in range(10):
        next(batches)
    assert worker.is_alive()
    worker.terminate()
    worker.join(10)
    assert worker.exitcode == 0
