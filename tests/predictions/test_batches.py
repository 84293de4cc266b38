"""Batches: the same predictions as one by one, in order, whatever the images."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from PIL import Image

from fbnetv3.predictions.batches import classify, in_threads, memory_errors
from fbnetv3.predictions.errors import PredictError
from fbnetv3.predictions.inputs import find_images
from tests.fixtures.colours import colour_classifier, save_colour


@pytest.mark.parametrize("batch_size", [1, 2, 3, 64])
def test_the_predictions_are_those_of_single_images(tmp_path: Path, batch_size: int) -> None:
    for number in range(7):
        colour = (40 * number, 200 - 20 * number, 90)
        save_colour(tmp_path / f"{number}.png", colour, size=(20 + number, 30))
    (tmp_path / "3.png").write_text("no image")
    classifier = colour_classifier()
    predictions = list(classify(classifier, find_images([tmp_path]), 2, batch_size))
    assert [p.number for p in predictions] == list(range(7))
    assert [bool(p.problem) for p in predictions] == [number == 3 for number in range(7)]
    assert str(tmp_path / "3.png") in predictions[3].problem
    for prediction in predictions:
        if not prediction.problem:
            expected = classifier.top(prediction.image.path, 2)
            assert [name for name, _ in prediction.classes] == [name for name, _ in expected]
            assert prediction.classes[0][1] == pytest.approx(expected[0][1], rel=1e-6)


def test_only_damaged_images(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no image")
    (prediction,) = classify(colour_classifier(), find_images([tmp_path / "a.png"]))
    assert "not an image" in prediction.problem


def test_threads_keep_the_order_and_compute_ahead_no_further_than_asked() -> None:
    started: list[int] = []
    release = threading.Event()

    def square(number: int) -> int:
        started.append(number)
        if number == 0:
            release.wait(10)
        return number * number

    pairs = in_threads(square, range(50), ahead=4)
    release.set()
    assert next(pairs) == (0, 0)
    assert len(started) <= 6
    assert list(pairs) == [(n, n * n) for n in range(1, 50)]


def test_an_error_of_a_thread_ends_the_others() -> None:
    def fail(number: int) -> int:
        raise ValueError(f"number {number}")

    with pytest.raises(ValueError, match="number 0"):
        list(in_threads(fail, range(100), ahead=8))


def test_lack_of_memory_of_a_device_says_what_to_lower() -> None:
    message = "32 images at once; lower --batch-size"
    with pytest.raises(PredictError, match=message), memory_errors(32):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_a_detector_runs_images_of_different_sizes_as_single_ones() -> None:
    pytest.importorskip("detectron2")
    from fbnetv3.zoo.detectors import get_detector

    detector = get_detector("retinanet_fbnetv3_a0.bccd")
    generator = torch.Generator().manual_seed(0)
    sizes = [(120, 96), (96, 120), (120, 96)]
    images = [
        torch.rand(3, height, width, generator=generator).mul(255).byte() for width, height in sizes
    ]
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    together = detector.detect_all(pictures, 0.01)
    for picture, boxes in zip(pictures, together, strict=True):
        alone = detector.detect(picture, 0.01)
        assert [box.name for box in boxes] == [box.name for box in alone]
        for box, expected in zip(boxes, alone, strict=True):
            assert box.score == pytest.approx(expected.score, abs=1e-4)
            assert box.box == pytest.approx(expected.box, abs=0.05)
    assert sum(map(len, together)) > 0
