"""Transforms compared with torchvision's, their random draws, and errors."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as v1
from torchvision.transforms import InterpolationMode

from fbnetv3.data import DataError, EvalTransform, TrainTransform
from fbnetv3.registries import register_transform

MEAN, STD = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)


def _image(width: int = 60, height: int = 45, seed: int = 0) -> Image.Image:
    # A smooth image, so that differences in resampling and position are both visible.
    random = np.random.RandomState(seed).randint(0, 256, (8, 8, 3)).astype(np.uint8)
    return Image.fromarray(random).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("size", [(60, 45), (45, 60), (32, 32), (300, 7)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("resize", "crop"), [(40, 32), (32, 32), (9, 8)])
def test_the_evaluation_transform_equals_torchvisions(size, interpolation, resize, crop):
    reference = v1.Compose(
        [
            v1.Resize(resize, InterpolationMode(interpolation)),
            v1.CenterCrop(crop),
            v1.ToTensor(),
            v1.Normalize(MEAN, STD),
        ]
    )
    image = _image(*size)
    tensor = EvalTransform(crop, resize, interpolation, MEAN, STD)(image)
    assert tensor.dtype == torch.float32
    torch.testing.assert_close(tensor, reference(image), rtol=0, atol=2e-6)


@pytest.mark.parametrize("size", [(20_000, 1), (1, 20_001), (30_000, 3)])
def test_a_line_of_pixels_is_cut_before_it_is_resized(size, monkeypatch):
    sizes = []
    resize = Image.Image.resize

    def recorded(image, size, *args, **kwargs):
        sizes.append(size)
        return resize(image, size, *args, **kwargs)

    image = _image(*size)
    monkeypatch.setattr(Image.Image, "resize", recorded)
    assert EvalTransform(224, 256)(image).shape == (3, 224, 224)
    assert TrainTransform(224, crop="padded")(image).shape == (3, 224, 224)
    assert len(sizes) == 2
    assert max(max(s) for s in sizes) <= 64 * 256


def test_an_image_of_the_final_size_is_not_resampled():
    image = _image(32, 32)
    assert np.array_equal(EvalTransform(32).pixels(image), image)
    assert np.array_equal(TrainTransform(32, crop="none", flip=False).pixels(image), image)


@pytest.mark.parametrize("crop", ["resized", "padded", "none"])
@pytest.mark.parametrize("auto_augment", ["none", "imagenet", "cifar10"])
@pytest.mark.parametrize("size", [(60, 45), (32, 32), (7, 90), (1, 1)])
def test_training_images_have_the_resolution(crop, auto_augment, size):
    transform = TrainTransform(32, crop=crop, auto_augment=auto_augment)
    for seed in range(8):
        torch.manual_seed(seed)
        result = transform(_image(*size))
        assert result.shape == (3, 32, 32)
        assert result.isfinite().all()


def test_training_images_depend_on_torchs_seed_only():
    transform = TrainTransform(32, auto_augment="imagenet")
    results = []
    for seed in (0, 1, 2, 3, 0, 1, 2, 3):
        torch.manual_seed(seed)
        results.append(transform(_image()))
    for first, second in zip(results[:4], results[4:], strict=True):
        assert torch.equal(first, second)
    assert len({r.sum().item() for r in results}) == 4


def test_the_padded_crop_shifts_by_up_to_an_eighth_over_black():
    image = Image.fromarray(np.full((32, 32, 3), 200, np.uint8))
    image.putpixel((16, 16), (255, 0, 0))
    transform = TrainTransform(32, crop="padded", flip=False)
    moves = set()
    torch.manual_seed(0)
    for _ in range(600):
        pixels = transform.pixels(image)
        ((y, x),) = np.argwhere((pixels == (255, 0, 0)).all(-1))
        moves.add((x - 16, y - 16))
        inside = (32 - abs(x - 16)) * (32 - abs(y - 16))
        assert (pixels.max(-1) > 0).sum() == inside
    assert {m[0] for m in moves} == {m[1] for m in moves} == set(range(-4, 5))


def test_the_resized_crop_equals_torchvisions():
    image = _image()
    reference = v1.RandomResizedCrop(32, antialias=True)
    transform = TrainTransform(32, crop="resized", flip=False)
    for seed in range(10):
        torch.manual_seed(seed)
        expected = np.asarray(reference(image))
        torch.manual_seed(seed)
        assert np.array_equal(transform.pixels(image), expected)


def test_half_of_the_images_are_flipped_unless_flip_is_off():
    image = _image(32, 32)
    mirrored = np.asarray(image)[:, ::-1]
    transform = TrainTransform(32, crop="none")
    torch.manual_seed(0)
    flips = [np.array_equal(transform.pixels(image), mirrored) for _ in range(400)]
    assert 160 < sum(flips) < 240
    without_flip = TrainTransform(32, crop="none", flip=False)
    assert all(np.array_equal(without_flip.pixels(image), image) for _ in range(20))


def test_auto_augment_changes_most_images():
    image = _image(32, 32)
    for policy in ("imagenet", "cifar10"):
        transform = TrainTransform(32, crop="none", flip=False, auto_augment=policy)
        torch.manual_seed(0)
        changed = [not np.array_equal(transform.pixels(image), image) for _ in range(60)]
        assert sum(changed) > 30


def test_a_normalised_batch_equals_single_images_and_is_channels_last():
    transform = EvalTransform(32, mean=MEAN, std=STD)
    images = [_image(32, 32, seed) for seed in range(5)]
    batch = transform.normalize(np.stack([transform.pixels(i) for i in images]))
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(batch, torch.stack([transform(i) for i in images]))


def test_transforms_can_be_pickled():
    transform = pickle.loads(pickle.dumps(TrainTransform(32, auto_augment="cifar10")))
    assert transform(_image()).shape == (3, 32, 32)


class _Inverted:
    def __init__(self, level=255):
        self.level = level

    def __call__(self, image):
        return image.point(lambda value: self.level - value)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("test_local", lambda level=255: lambda image: image.point(lambda v: level - v)),
        ("test_lambda", lambda level=255: _Inverted(level).__call__),
        ("test_class", _Inverted),
    ],
)
def test_registered_transforms_of_any_kind_can_be_pickled(name, make):
    register_transform(name)(make)
    step = TrainTransform(32, crop="none", flip=False, registered=[f"{name}?level=200"])
    copy = pickle.loads(pickle.dumps(step))
    assert torch.equal(copy(_image()), step(_image()))
    assert not torch.equal(copy(_image()), TrainTransform(32, crop="none", flip=False)(_image()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TrainTransform(32, crop="centre"), "crop 'centre'.*resized, padded, none"),
        (lambda: TrainTransform(32, auto_augment="svhn"), "auto_augment 'svhn'.*none, imagenet"),
        (lambda: EvalTransform(32, interpolation="cubic"), "interpolation 'cubic'.*bicubic"),
        (lambda: EvalTransform(32, 16), r"resize is 16; allowed: 32 \(the resolution\) or more"),
        (lambda: EvalTransform(0), "the resolution is 0"),
        (lambda: EvalTransform(32, std=(1, 1, 0)), "std > 0"),
        (lambda: EvalTransform(32, mean=(1,)), "three numbers"),
    ],
)
def test_errors_name_the_allowed_values(make, message):
    with pytest.raises(DataError, match=message):
        make()
