"""Checks of exported detectors in their own runtimes: boxes and average precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torchvision.ops import box_iou

from fbnetv3.data import read_image
from fbnetv3.detection.coco import CocoDataset
from fbnetv3.detection.detector import Detector
from fbnetv3.detection.evaluation import evaluate_boxes
from fbnetv3.export.check import mismatch
from fbnetv3.export.detectors.data import pixels_of
from fbnetv3.export.detectors.job import Boxes, RunDetector
from fbnetv3.export.detectors.network import DetectorNetwork
from fbnetv3.export.errors import ExportError
from fbnetv3.weights.classes import class_order, other_classes

BOX_TOLERANCE = 0.1
"""Largest allowed difference of a coordinate of a box from torch's in float32, in image pixels."""
SCORE_TOLERANCE = 1e-3
"""Largest allowed difference of a score from torch's in float32."""
MIN_AGREEMENT = 0.9
"""Smallest allowed share of clear objects that an 8-bit file and torch have in common."""
_IOU_MARGIN = 1e-3  # an IoU this close to the NMS threshold may be on either side by rounding
# Smallest score of a clear object, and smallest IoU of two boxes of the same object
_CLEAR_SCORE, _SAME_IOU = 0.5, 0.5

ImageRun = Callable[[Image.Image], Boxes]
"""Function from an image of any size to boxes in pixels of this image."""


@dataclass(frozen=True)
class Difference:
    """The largest differences between the boxes of a file and of torch.

    Attributes:
        box: Largest difference of a coordinate of a box, in pixels of the image.
        score: Largest difference of a score.
        objects: Number of torch's objects. Objects that rounding may remove count, too.
    """

    box: float = 0.0
    score: float = 0.0
    objects: int = 0

    def merged(self, other: Difference) -> Difference:
        """Returns the larger box and score differences, and the sum of the numbers of objects."""
        box, score = max(self.box, other.box), max(self.score, other.score)
        return Difference(box, score, self.objects + other.objects)


def in_image(run: RunDetector, detector: Detector, network: DetectorNetwork) -> ImageRun:
    """Returns a function that resizes an image, runs a file, and scales its boxes back."""

    def run_image(image: Image.Image) -> Boxes:
        pixels = pixels_of(detector, network, image)
        boxes, scores, classes = run(pixels)
        scale = (image.width / pixels.shape[3], image.height / pixels.shape[2])
        return Boxes(boxes * np.asarray(scale * 2, np.float32), scores, classes)

    return run_image


def in_torch(detector: Detector) -> ImageRun:
    """Returns a function that detects objects with the detector itself."""

    def run_image(image: Image.Image) -> Boxes:
        (output,) = detector([image])
        return Boxes(*(output[key].cpu().numpy() for key in ("boxes", "scores", "labels")))

    return run_image


def compare(
    run: ImageRun, detector: Detector, network: DetectorNetwork, images: Sequence[Image.Image]
) -> Difference:
    """Compares the boxes of a file with those of the detector.

    Each of torch's objects, by descending score, is matched with the closest object of the file
    that has the same class and is not matched yet; box and score must be within the tolerances. An
    object may be missing on either side if rounding decides whether it exists: if its score is
    close to the score threshold or, in a full list, to the lowest score, or if its overlap with
    another object is close to the threshold of non-maximum suppression (NMS).

    Raises:
        ExportError: The objects differ, the file returns other shapes or values that are not
            finite, or torch sees no object in the images.
    """
    total = Difference()
    expected_run = in_torch(detector)
    for image in images:
        total = total.merged(_compare_image(run(image), expected_run(image), network))
    if not total.objects:
        raise _nothing_to_compare()
    return total


def _nothing_to_compare(with_score: str = "") -> ExportError:
    return ExportError(
        f"the detector sees no object{with_score} in the images to compare on, so that the file "
        "cannot be checked; name a data set with objects with --data"
    )


def _compare_image(actual: Boxes, expected: Boxes, network: DetectorNetwork) -> Difference:
    shapes = [output.shape[1:] for output in actual]
    if shapes != [(4,), (), ()] or not all(np.isfinite(output).all() for output in actual):
        raise mismatch(
            f"boxes, scores and classes of shapes {shapes} per object, or values that are not "
            "finite"
        )
    free = np.ones(len(actual.scores), bool)
    result, missing = Difference(objects=len(expected.scores)), []
    for i in range(len(expected.scores)):
        j, difference = _closest(actual, expected, i, free)
        if difference.box <= BOX_TOLERANCE and difference.score <= SCORE_TOLERANCE:
            free[j] = False
            result = result.merged(difference)
        elif not _is_borderline(expected, i, network):
            missing.append((i, difference))
    unmatched = np.flatnonzero(free).tolist()
    surplus = [j for j in unmatched if not _is_borderline(actual, j, network)]
    if missing or surplus:
        raise mismatch(_described(expected, actual, missing, surplus))
    return result


def _closest(
    actual: Boxes, expected: Boxes, i: int, free: npt.NDArray[np.bool_]
) -> tuple[int, Difference]:
    """Returns the free object of a file that is closest to torch's object ``i``.

    Returns:
        Its index and its difference; -1 and infinite differences if no free object has the class.
    """
    same = np.flatnonzero(free & (actual.classes == expected.classes[i]))
    if not len(same):
        return -1, Difference(float("inf"), float("inf"))
    boxes = np.abs(actual.boxes[same] - expected.boxes[i]).max(1)
    scores = np.abs(actual.scores[same] - expected.scores[i])
    best = int(np.maximum(boxes / BOX_TOLERANCE, scores / SCORE_TOLERANCE).argmin())
    return int(same[best]), Difference(float(boxes[best]), float(scores[best]))


def _is_borderline(objects: Boxes, i: int, network: DetectorNetwork) -> bool:
    """Returns whether an object may appear or disappear by rounding."""
    score, last = objects.scores[i], objects.scores[-1]
    at_threshold = score <= network.score_threshold + SCORE_TOLERANCE
    is_full = len(objects.scores) >= network.max_detections
    if at_threshold or (is_full and score <= last + SCORE_TOLERANCE):
        return True
    others = (objects.scores >= score - SCORE_TOLERANCE) & (objects.classes == objects.classes[i])
    others[i] = False
    overlaps = _overlaps(objects.boxes[[i]], objects.boxes[others])
    return bool((np.abs(overlaps - network.nms_threshold) <= _IOU_MARGIN).any())


def _overlaps(boxes: Any, others: Any) -> npt.NDArray[np.float32]:
    """Returns the intersections over unions (N, M) of boxes (N, 4) and (M, 4)."""
    return np.asarray(box_iou(torch.from_numpy(boxes), torch.from_numpy(others)).numpy())


def _described(
    expected: Boxes,
    actual: Boxes,
    missing: Sequence[tuple[int, Difference]],
    surplus: Sequence[int],
) -> str:
    """Describes how the objects of a file differ from torch's."""
    counts = f"{len(actual.scores)} objects instead of {len(expected.scores)}"
    if len(actual.scores) != len(expected.scores):
        return f"{counts} in an image"
    finite = [d for _, d in missing if np.isfinite(d.box)]
    if not finite:
        return f"{max(len(missing), len(surplus))} objects of an image that torch does not have"
    box, score = max(d.box for d in finite), max(d.score for d in finite)
    return (
        f"boxes that differ by {box:.3g} pixels and scores that differ by {score:.3g} (allowed: "
        f"{BOX_TOLERANCE} and {SCORE_TOLERANCE})"
    )


def compare_quantized(run: ImageRun, detector: Detector, images: Sequence[Image.Image]) -> float:
    """Returns the share of clear objects that a file with 8-bit integers and torch have in common.

    Clear objects have a score of 0.5 or more. A clear object of the file is common if torch has an
    object of the same class, at any score, whose box overlaps with an IoU of 0.5 or more; likewise
    for the clear objects of torch.

    Raises:
        ExportError: The share is below ``MIN_AGREEMENT``, or torch sees no clear object.
    """
    shares, clear, expected_run = [], 0, in_torch(detector)
    for image in images:
        actual, expected = run(image), expected_run(image)
        clear += int((expected.scores >= _CLEAR_SCORE).sum())
        shares += [_common(expected, actual), _common(actual, expected)]
    if not clear:
        raise _nothing_to_compare(f" with a score of {_CLEAR_SCORE} or more")
    share = float(np.concatenate(shares).mean())
    if not share >= MIN_AGREEMENT:
        raise mismatch(
            f"objects of which too few agree with torch's: {100 * share:.0f}% of the file's and "
            f"torch's objects with a score of {_CLEAR_SCORE} or more (allowed: "
            f"{100 * MIN_AGREEMENT:.0f}% or more)"
        )
    return share


def _common(objects: Boxes, others: Boxes) -> npt.NDArray[np.bool_]:
    """Returns for each clear object of ``objects`` whether ``others`` have it, too."""
    clear = objects.scores >= _CLEAR_SCORE
    overlaps = _overlaps(objects.boxes[clear], others.boxes)
    same = objects.classes[clear][:, None] == others.classes[None, :]
    return np.asarray((same & (overlaps >= _SAME_IOU)).any(1))


def average_precision(run: ImageRun, detector: Detector, data: CocoDataset) -> float:
    """Returns COCO's AP of a file on a data set, in percent; NaN if no box is scored.

    Raises:
        ExportError: The classes of the data are not those of the detector.
        DataError: An image cannot be read.
    """
    ids = _category_ids(detector, data)
    results: list[dict[str, Any]] = []
    for record in data.records:
        boxes, scores, classes = run(read_image(record["file_name"]))
        xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).tolist()
        columns = zip(xywh, scores.tolist(), classes.tolist(), strict=True)
        results += [
            {
                "image_id": record["image_id"],
                "category_id": ids[label],
                "bbox": box,
                "score": score,
            }
            for box, score, label in columns
        ]
    return evaluate_boxes(data.ground_truth(), results).overall.get("AP", float("nan"))


def _category_ids(detector: Detector, data: CocoDataset) -> dict[int, int]:
    """Returns the data's category ids by the index of the class in the detector."""
    order = class_order(detector.classes, data.classes)
    if order is None:
        raise ExportError(
            f"{data.name}: {other_classes(detector.classes, data.classes)}; give --data with the "
            "classes of the weights"
        )
    return dict(zip(order, data.category_ids, strict=True))
