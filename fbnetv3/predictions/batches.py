"""Predictions in batches: threads prepare the next images while the network computes."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from PIL import Image

from fbnetv3.data.decode import read_image
from fbnetv3.errors import FBNetError
from fbnetv3.predictions.errors import PredictError
from fbnetv3.predictions.inputs import ImageFile
from fbnetv3.zoo.classifier import Classifier

if TYPE_CHECKING:  # detectron2 is optional
    from fbnetv3.detection.detector import Detection, Detector

CLASSIFIER_BATCH, DETECTOR_BATCH = 32, 8
"""Default ``batch_size`` of :func:`classify` and of :func:`detect`, in this order."""
_MAX_THREADS = 16  # largest number of threads that prepare images
Item = TypeVar("Item")
Value = TypeVar("Value")


@dataclass(frozen=True)
class Prediction:
    """The prediction of a network for an image.

    Attributes:
        number: Index of the image in the list of images.
        image: The image.
        classes: Names of a classifier's most probable classes with their probabilities, the highest
            first.
        boxes: Objects that a detector has found, by descending score.
        pixels: Crop (H, W, 3), uint8, that a classifier sees, or the upright image that a detector
            sees; None if the image could not be read.
        problem: Reason why the image could not be read; "" if it was read.
        picture: File of the picture that was drawn of the prediction; None if none was drawn.
    """

    number: int
    image: ImageFile
    classes: Sequence[tuple[str, float]] = ()
    boxes: Sequence[Detection] = ()
    pixels: Any = None
    problem: str = ""
    picture: Path | None = None


def classify(
    classifier: Classifier,
    images: Sequence[ImageFile],
    top_k: int = 5,
    batch_size: int = CLASSIFIER_BATCH,
) -> Iterator[Prediction]:
    """Yields the most probable classes of each image, in the order of the images.

    Args:
        classifier: Classifier on its device.
        images: Images; if one cannot be read, ``problem`` of its prediction gives the reason.
        top_k: Number of classes; if it is above the number of all classes, all are returned.
        batch_size: Largest number of images that are run together, at least 1.

    Raises:
        PredictError: The device has too little memory for a batch.
    """
    k = min(top_k, len(classifier.classes))
    transform = classifier.transform

    def predict(pixels: list[Any]) -> list[dict[str, Any]]:
        values, indices = classifier.scores_of_pixels(pixels).topk(k)
        names = [[classifier.classes[i] for i in row] for row in indices.tolist()]
        rows = zip(names, values.tolist(), strict=True)
        return [{"classes": list(zip(*row, strict=True))} for row in rows]

    return _predictions(images, transform.pixels, predict, batch_size)


def detect(
    detector: Detector,
    images: Sequence[ImageFile],
    threshold: float = 0.3,
    batch_size: int = DETECTOR_BATCH,
) -> Iterator[Prediction]:
    """Yields the objects in each image, in the order of the images.

    Args:
        detector: Detector on its device.
        images: Images; if one cannot be read, ``problem`` of its prediction gives the reason.
        threshold: Minimum score of the objects, in [0, 1].
        batch_size: Largest number of images that are read together, at least 1; images among them
            that have the same size are run together.

    Raises:
        PredictError: The device has too little memory for a batch.
    """

    def predict(pixels: list[Any]) -> list[dict[str, Any]]:
        return [{"boxes": boxes} for boxes in detector.detect_all(pixels, threshold)]

    return _predictions(images, lambda image: image, predict, batch_size)


def _predictions(
    images: Sequence[ImageFile],
    prepare: Callable[[Image.Image], Any],
    predict: Callable[[list[Any]], list[dict[str, Any]]],
    batch_size: int,
) -> Iterator[Prediction]:
    def load(image: ImageFile) -> Any:
        try:
            return prepare(read_image(image.read(), str(image)))
        except FBNetError as error:
            return error

    batch: list[tuple[int, ImageFile, Any]] = []
    for number, (image, pixels) in enumerate(in_threads(load, images, 2 * batch_size)):
        batch.append((number, image, pixels))
        if len(batch) == batch_size or number + 1 == len(images):
            yield from _of_batch(batch, predict)
            batch = []


def _of_batch(
    batch: Sequence[tuple[int, ImageFile, Any]],
    predict: Callable[[list[Any]], list[dict[str, Any]]],
) -> Iterator[Prediction]:
    readable = [pixels for _, _, pixels in batch if not isinstance(pixels, FBNetError)]
    with memory_errors(len(readable)):
        results = iter(predict(readable) if readable else [])
    for number, image, pixels in batch:
        if isinstance(pixels, FBNetError):
            yield Prediction(number, image, problem=str(pixels))
        else:
            yield Prediction(number, image, pixels=pixels, **next(results))


@contextmanager
def memory_errors(count: int) -> Iterator[None]:
    """Turns torch's error about a lack of device memory into an error of one line.

    Args:
        count: Number of images that are run together.

    Raises:
        PredictError: The device has too little memory.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise PredictError(
            f"the device has too little memory for {count} images at once; lower --batch-size, or "
            "use --device cpu"
        ) from error


def in_threads(
    function: Callable[[Item], Value], items: Iterable[Item], ahead: int
) -> Iterator[tuple[Item, Value]]:
    """Yields each item with the function's value, in order; threads compute the next values.

    Args:
        function: Function that may be called by several threads at once.
        items: Arguments.
        ahead: Largest number of values that are computed in advance.
    """
    threads = min(_MAX_THREADS, os.cpu_count() or 1)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="fbnetv3-images")
    pending: deque[tuple[Item, Future[Value]]] = deque()
    try:
        for item in items:
            pending.append((item, pool.submit(function, item)))
            if len(pending) > ahead:
                first, future = pending.popleft()
                yield first, future.result()
        while pending:
            first, future = pending.popleft()
            yield first, future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
