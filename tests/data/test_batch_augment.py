"""Augmentation of batches and epochs: erasing, CutMix, copies and balance, against torchvision."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torchvision.transforms import v2

from fbnetv3.data import DataError, keyed_generator
from fbnetv3.data.batch_augment import BatchAugment
from fbnetv3.data.erasing import erase, erasing_boxes
from fbnetv3.data.mixup import Mixup
from fbnetv3.data.order import EpochOrder


def test_erased_areas_have_the_distribution_of_torchvision() -> None:
    side, count = 48, 1500
    boxes = erasing_boxes(count, side, side, 0.5, torch.Generator().manual_seed(0))
    images = erase(torch.ones(count, 3, side, side), boxes)
    ours = (images[:, 0] == 0).double().mean((1, 2))
    torch.manual_seed(0)
    transform = v2.RandomErasing(0.5)
    theirs = torch.stack([(transform(torch.ones(1, side, side)) == 0).double().mean()
                          for _ in range(count)])  # fmt: skip
    assert (ours > 0).double().mean() == pytest.approx(0.5, abs=0.05)
    for share in (0.25, 0.5, 0.75):
        left, right = (x[x > 0].quantile(share) for x in (ours, theirs))
        assert left.item() == pytest.approx(right.item(), rel=0.12)


def test_erasing_is_that_of_the_joined_batch() -> None:
    images, labels = torch.ones(8, 3, 16, 16), torch.zeros(8, dtype=torch.int64)
    whole, _ = BatchAugment(2, random_erasing=0.5, seed=3)(images, labels, 7)
    parts = [
        BatchAugment(2, random_erasing=0.5, seed=3, rank=r, world_size=2)(
            images[:4], labels[:4], 7
        )[0]
        for r in (0, 1)
    ]
    assert torch.equal(torch.cat(parts), whole)
    again, _ = BatchAugment(2, random_erasing=0.5, seed=3)(images, labels, 8)
    assert not torch.equal(whole, again)


def test_cutmix_targets_have_the_share_of_the_pasted_area() -> None:
    images = torch.zeros(2, 3, 32, 32)
    images[1] = 1.0
    labels = torch.tensor([0, 1])
    shares = []
    for step in range(400):
        mixed, targets = BatchAugment(2, cutmix=1.0)(images, labels, step)
        pasted = mixed[0, 0].mean().item()
        assert targets[0, 1].item() == pytest.approx(pasted, abs=1e-6)
        shares.append(pasted)
    cutmix = v2.CutMix(num_classes=2, alpha=1.0)
    torch.manual_seed(0)
    theirs = [cutmix(images, labels)[1][0, 1].item() for _ in range(400)]
    mean = sum(shares) / 400
    assert mean == pytest.approx(sum(theirs) / 400, abs=0.05)


def test_mixup_alone_has_the_draws_of_earlier_versions() -> None:
    images, labels = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])
    expected = Mixup(0.2, 3, 0.1)(images, labels, keyed_generator(3, 5, 11))
    result = BatchAugment(3, mixup=0.2, label_smoothing=0.1, seed=5)(images, labels, 11)
    assert all(torch.equal(a, b) for a, b in zip(result, expected, strict=True))


def test_both_mixings_take_turns() -> None:
    images, labels = torch.zeros(2, 3, 32, 32), torch.tensor([0, 1])
    images[1] = 1.0
    augment = BatchAugment(2, mixup=1.0, cutmix=1.0)
    blended = [len(augment(images, labels, i)[0][0].unique()) == 1 for i in range(200)]
    assert 60 < sum(blended) < 140


def test_several_labels_are_smoothed_one_by_one() -> None:
    labels = torch.tensor([[1.0, 0.0, 1.0]])
    _, targets = BatchAugment(3, label_smoothing=0.2)(torch.zeros(1, 3, 4, 4), labels, 0)
    assert torch.allclose(targets, torch.tensor([[0.9, 0.1, 0.9]]))


@pytest.mark.parametrize("values", [{"cutmix": -1.0}, {"random_erasing": 1.5}, {"mixup": -1.0}])
def test_values_out_of_range(values: dict[str, float]) -> None:
    with pytest.raises(DataError, match="out of range"):
        BatchAugment(2, **values)


def test_a_plain_order_is_the_permutation_of_earlier_versions() -> None:
    expected = torch.randperm(50, generator=keyed_generator(0, 9, 2)).tolist()
    assert EpochOrder(50, 9).of_epoch(2) == [(i, 0) for i in expected]


@pytest.mark.parametrize(
    ("power", "counts"), [(1.0, {0: 50, 1: 50}), (0.5, {0: 75, 1: 25}), (0.0, {0: 90, 1: 10})]
)
def test_balanced_orders(power: float, counts: dict[int, int]) -> None:
    targets = [0] * 90 + [1] * 10
    pairs = EpochOrder(100, 0, targets=targets, balance=power).of_epoch(3)
    assert Counter(targets[i] for i, _ in pairs) == counts
    assert len(set(pairs)) == 100  # another copy for each repetition
    drawn = Counter(i for i, _ in pairs if targets[i] == 1)
    assert max(drawn.values()) - min(drawn.values()) <= 1


def test_repeated_images_follow_each_other() -> None:
    pairs = EpochOrder(10, 0, repeats=3).of_epoch(0)
    assert len(pairs) == 10
    assert [copy for _, copy in pairs] == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]
    assert len({i for i, _ in pairs}) == 4


def test_balance_needs_one_class_per_image() -> None:
    with pytest.raises(DataError, match="one class each"):
        EpochOrder(2, 0, targets=[(0, 1), (1,)], balance=1.0)  # type: ignore[list-item]
