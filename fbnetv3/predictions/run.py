"""Predictions with their files: results, images with boxes, and class-activation pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from fbnetv3.data.errors import plural
from fbnetv3.io import atomic_write
from fbnetv3.predictions.annotations import CocoIds, ids_without_json
from fbnetv3.predictions.batches import (
    CLASSIFIER_BATCH,
    DETECTOR_BATCH,
    Prediction,
    classify,
    detect,
)
from fbnetv3.predictions.errors import PredictError
from fbnetv3.predictions.explain import Explainer
from fbnetv3.predictions.inputs import ImageFile
from fbnetv3.predictions.outputs import results_file
from fbnetv3.zoo.classifier import Classifier

if TYPE_CHECKING:  # detectron2 is optional
    from fbnetv3.detection.detector import Detector

Draw = Callable[[Prediction], Image.Image]


@dataclass(frozen=True)
class PredictOptions:
    """Options of :func:`predict`, and the files that it writes.

    Attributes:
        top_k: Number of classes that a classifier predicts for each image.
        threshold: Minimum score of a detector's boxes, in [0, 1].
        batch_size: Number of images that are run together; None: 32, or 8 for a detector.
        results: ``.csv`` or ``.json`` file of the results; None: no file.
        ids: Ids of a COCO json for a detector's results; None: the images are numbered from 1.
        pictures: Folder of a detector's images with boxes, or of a classifier's class-activation
            pictures, which need ``explain``; None: no pictures.
        explain: Whether class-activation pictures of a classifier are drawn into ``pictures``, with
            the maps of its ``top_k`` classes.
    """

    top_k: int = 5
    threshold: float = 0.3
    batch_size: int | None = None
    results: Path | None = None
    ids: CocoIds | None = None
    pictures: Path | None = None
    explain: bool = False


def predict(
    network: Classifier | Detector, images: Sequence[ImageFile], options: PredictOptions
) -> Iterator[Prediction]:
    """Yields the prediction for each image, in order, and writes the files.

    For an image that cannot be read, the prediction has the reason as ``problem``, and the file of
    results has no entry. This file appears, complete, after the last prediction. Until then, and
    after an error, a file that was there before with the same name is unchanged.

    Args:
        network: Classifier or detector on its device.
        images: Images, see :func:`fbnetv3.predictions.inputs.find_images`.
        options: Options and files.

    Raises:
        FBNetError: A file cannot be written, an option does not fit the network, or the device has
            too little memory for a batch.
    """
    ids = None
    draw = None
    if isinstance(network, Classifier):
        size = options.batch_size or CLASSIFIER_BATCH
        predictions = classify(network, images, options.top_k, size)
        draw = _explanations(network) if options.explain else None
    else:
        ids = options.ids or ids_without_json(images)
        _refuse_explanation(options)
        size = options.batch_size or DETECTOR_BATCH
        predictions = detect(network, images, options.threshold, size)
        draw = _boxes(network, options.threshold)
    with ExitStack() as stack:
        add = None
        if options.results is not None:
            add = stack.enter_context(results_file(options.results, ids, network.classes))
        for prediction in predictions:
            if add is not None and not prediction.problem:
                add(prediction)
            yield _with_picture(prediction, options.pictures, draw)


def _refuse_explanation(options: PredictOptions) -> None:
    if options.explain:
        raise PredictError(
            "--explain is for classifiers: a detector's boxes show where it sees an object; leave "
            "out --explain"
        )


def _explanations(classifier: Classifier) -> Draw:
    explainer = Explainer(classifier)
    return lambda prediction: explainer.picture(prediction.pixels, prediction.classes)


def _boxes(detector: Detector, threshold: float) -> Draw:
    def draw(prediction: Prediction) -> Image.Image:
        count = plural(len(prediction.boxes), "box", "es")
        title = (
            f"{prediction.image}: {count} with a score of {100 * threshold:g}% or more; "
            "numbers are scores in percent."
        )
        return detector.picture(prediction.pixels, prediction.boxes, title)

    return draw


def _with_picture(prediction: Prediction, folder: Path | None, draw: Draw | None) -> Prediction:
    """Writes the picture of a prediction; returns the prediction with its path."""
    if folder is None or draw is None or prediction.problem:
        return prediction
    target = folder / f"{prediction.number:04d}_{prediction.image.stem}.png"
    with atomic_write(target) as temporary:
        draw(prediction).save(temporary, "PNG")
    return dataclasses.replace(prediction, picture=target)
