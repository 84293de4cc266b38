"""Mixup compared with timm's, its random weights, and label smoothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from timm.data.mixup import Mixup as TimmMixup
from timm.data.mixup import mixup_target

from fbnetv3.data import DataError, Mixup


def _batch(n: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(n, 3, 5, 5, generator=generator).contiguous(
        memory_format=torch.channels_last
    )
    return images, torch.randint(10, (n,), generator=generator)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 1.0])
def test_equals_timm_for_the_same_weight(weight, smoothing, monkeypatch):
    images, labels = _batch()
    reference = TimmMixup(mixup_alpha=0.2, label_smoothing=smoothing, num_classes=10)
    monkeypatch.setattr(np.random, "beta", lambda a, b: weight)
    expected_images, expected_targets = reference(images.clone(), labels)
    mixup = Mixup(0.2, 10, smoothing)
    mixed_images, mixed_targets = mixup.blend(images, mixup.soft_targets(labels), weight)
    torch.testing.assert_close(mixed_images, expected_images, rtol=0, atol=1e-6)
    torch.testing.assert_close(mixed_targets, expected_targets, rtol=0, atol=1e-6)
    torch.testing.assert_close(mixed_targets, mixup_target(labels, 10, weight, smoothing))


def test_images_are_blended_by_the_drawn_weight_and_the_inputs_kept():
    images, labels = _batch(7)
    copied = images.clone()
    mixup = Mixup(0.19, 10, 0.1)
    mixed, targets = mixup(images, labels, torch.Generator().manual_seed(4))
    weight = mixup.draw(torch.Generator().manual_seed(4))
    assert torch.equal(images, copied)
    assert mixed.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(mixed, weight * images + (1 - weight) * images.flip(0))
    torch.testing.assert_close(targets.sum(1), torch.ones(7))


def test_alpha_0_only_smooths_labels_and_draws_nothing():
    images, labels = _batch()
    generator = torch.Generator().manual_seed(1)
    state = generator.get_state()
    mixed, targets = Mixup(0.0, 10, 0.1)(images, labels, generator)
    assert mixed is images
    assert torch.equal(generator.get_state(), state)
    logits = torch.randn(8, 10, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(
        torch.nn.functional.cross_entropy(logits, targets),
        torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.1),
    )


@pytest.mark.parametrize("alpha", [0.19, 1.0, 4.0])
def test_weights_are_beta_distributed(alpha):
    generator = torch.Generator().manual_seed(0)
    mixup = Mixup(alpha, 10)
    weights = [mixup.draw(generator) for _ in range(2000)]
    assert stats.kstest(weights, stats.beta(alpha, alpha).cdf).pvalue > 1e-3


def test_weights_depend_on_the_generator_only():
    mixup = Mixup(0.5, 10)

    def draws(seed: int) -> list[float]:
        generator = torch.Generator().manual_seed(seed)
        return [mixup.draw(generator) for _ in range(3)]

    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = draws(1)
    assert draws(1) == first
    assert draws(2) != first
    assert len(set(first)) == 3
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("values", [(-0.1, 10, 0.0), (0.1, 0, 0.0), (0.1, 10, 1.0)])
def test_values_out_of_range_are_refused(values):
    with pytest.raises(DataError, match="out of range"):
        Mixup(*values)
