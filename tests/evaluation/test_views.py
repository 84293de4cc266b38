"""The views of test-time augmentation."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from fbnetv3.data import EvalTransform
from fbnetv3.evaluation.errors import EvaluationError
from fbnetv3.evaluation.views import views_of


def _image(width: int = 40, height: int = 32) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    return Image.fromarray(pixels)


def test_flip_mirrors_the_view_of_the_preprocessing() -> None:
    transform = EvalTransform(32)
    plain, mirrored = (view(_image()) for view in views_of(transform, ["flip"]))
    assert np.array_equal(plain, transform.pixels(_image()))
    assert np.array_equal(mirrored, plain[:, ::-1])


def test_crops_are_the_corners_and_the_centre_of_the_resized_square() -> None:
    views = [view(_image()) for view in views_of(EvalTransform(24, 32), ["crops"])]
    square = EvalTransform(32, 32).pixels(_image())
    expected = [square[:24, :24], square[:24, 8:], square[8:, :24], square[8:, 8:]]
    expected.append(square[4:28, 4:28])
    assert all(np.array_equal(*pair) for pair in zip(views, expected, strict=True))


def test_crops_of_an_image_that_is_not_resized_are_different() -> None:
    views = [view(_image(32, 32)) for view in views_of(EvalTransform(32), ["crops"])]
    assert len({view.tobytes() for view in views}) == 5
    assert {view.shape for view in views} == {(32, 32, 3)}


def test_scales_and_combinations() -> None:
    transform = EvalTransform(32, 40)
    sizes = [view(_image()).shape[0] for view in views_of(transform, ["scales"])]
    assert sizes == [32, 40]
    assert len(views_of(transform, ["flip", "scales", "crops"])) == 20
    assert len(views_of(transform)) == 1


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(EvaluationError, match="'rotate'; allowed: flip, scales, crops"):
        views_of(EvalTransform(32), ["rotate"])
