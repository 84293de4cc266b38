"""AutoAugment against torchvision's, which is the reference of draws and pixels."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from fbnetv3.data.autoaugment import AutoAugment, apply_operation, magnitude
from fbnetv3.data.policies import CIFAR10, IMAGENET

_FILL = [128, 128, 128]
_REFERENCE = v2.AutoAugment(fill=_FILL)
_SPACE = _REFERENCE._AUGMENTATION_SPACE
_POLICIES = [
    (IMAGENET, v2.AutoAugmentPolicy.IMAGENET),
    (CIFAR10, v2.AutoAugmentPolicy.CIFAR10),
]


def _images():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (23, 31, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(noise[:6, :6]).resize((40, 33), Image.Resampling.BICUBIC))
    dark = (noise // 16 + 3).astype(np.uint8)
    flat = np.full((16, 16, 3), (7, 255, 0), dtype=np.uint8)
    two = np.where(noise < 128, 10, 200).astype(np.uint8)
    one_channel = noise * np.array([1, 0, 0], dtype=np.uint8)
    return [noise, smooth, dark, flat, two, one_channel, noise[:1, :1]]


def _reference(pixels, name, value):
    image = _REFERENCE._apply_image_or_video_transform(
        Image.fromarray(pixels), name, value, _REFERENCE.interpolation, _REFERENCE._fill
    )
    return np.asarray(image)


def _signed_values(name, pixels):
    magnitudes, signed = _SPACE[name]
    values = magnitudes(10, *pixels.shape[:2])
    values = [0.0] if values is None else [float(value) for value in values]
    return values + [-value for value in values] if signed else values


@pytest.mark.parametrize("name", _SPACE)
def test_each_operation_gives_torchvisions_pixels_at_each_magnitude(name):
    for pixels in _images():
        for value in _signed_values(name, pixels):
            expected = _reference(pixels, name, value)
            for image in (pixels, Image.fromarray(pixels)):
                np.testing.assert_array_equal(
                    apply_operation(image, [(name, value)], _FILL), expected, f"{name} {value}"
                )


@pytest.mark.parametrize("second", _SPACE)
def test_pairs_of_operations_give_torchvisions_pixels(second):
    for first in _SPACE:
        for pixels in _images():
            one, two = _signed_values(first, pixels)[-3:][0], _signed_values(second, pixels)[-3:][0]
            expected = _reference(_reference(pixels, first, one), second, two)
            pair = [(first, one), (second, two)]
            np.testing.assert_array_equal(apply_operation(pixels, pair, _FILL), expected, first)


def test_three_tables_in_a_row_are_combined():
    pixels = _images()[1]
    steps = [("Equalize", 0.0), ("Solarize", 0.4), ("AutoContrast", 0.0), ("Brightness", -0.3)]
    expected = pixels
    for name, value in steps:
        expected = _reference(expected, name, value)
    np.testing.assert_array_equal(apply_operation(pixels, steps, _FILL), expected)


@pytest.mark.parametrize(("policy", "published"), _POLICIES)
def test_draws_and_pixels_are_torchvisions(policy, published):
    ours, reference = AutoAugment(policy, _FILL), v2.AutoAugment(published, fill=_FILL)
    pixels = _images()[1]
    for seed in range(150):
        torch.manual_seed(seed)
        expected = np.asarray(reference(Image.fromarray(pixels)))
        after = torch.rand(())
        torch.manual_seed(seed)
        np.testing.assert_array_equal(ours(pixels), expected, f"seed {seed}")
        assert torch.rand(()) == after


@pytest.mark.parametrize(("policy", "published"), _POLICIES)
def test_policies_are_torchvisions(policy, published):
    expected = v2.AutoAugment(published)._policies
    assert policy == tuple(
        tuple((name, probability, level or 0) for name, probability, level in pair)
        for pair in expected
    )


@pytest.mark.parametrize("name", _SPACE)
def test_magnitudes_are_torchvisions(name):
    values = _SPACE[name][0](10, 20, 30)
    expected = [0.0] * 10 if values is None else [float(value) for value in values]
    assert [magnitude(name, level, 30, 20) for level in range(10)] == expected


def test_the_input_is_not_changed():
    pixels = _images()[0]
    before = pixels.copy()
    for name in _SPACE:
        apply_operation(pixels, [(name, _signed_values(name, pixels)[-1])], _FILL)
    np.testing.assert_array_equal(pixels, before)
