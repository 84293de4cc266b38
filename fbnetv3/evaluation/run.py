"""The evaluation of a classifier or a detector: data set, predictions, and written files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fbnetv3.data import ImageDataset, build_dataset
from fbnetv3.data.datasets import find_data
from fbnetv3.evaluation.calibration import BINS
from fbnetv3.evaluation.classifiers import Report, report_classes, report_labels
from fbnetv3.evaluation.errors import EvaluationError
from fbnetv3.evaluation.outcomes import order_of_classes, predict_dataset
from fbnetv3.evaluation.tables import write_scores
from fbnetv3.predictions.batches import CLASSIFIER_BATCH, DETECTOR_BATCH
from fbnetv3.zoo.classifier import Classifier

if TYPE_CHECKING:  # detectron2 is optional
    from fbnetv3.detection.coco import CocoDataset
    from fbnetv3.detection.detector import Detector

SCORES = "scores.json"


@dataclass(frozen=True)
class EvaluateOptions:
    """Options of an evaluation.

    Attributes:
        batch_size: Number of images that are run together; None: 32, or 8 for a detector.
        augmentations: Test-time augmentations of a classifier, see ``views.py``.
        bins: Number of bins of confidence. In each bin, a classifier's accuracy is compared with
            its mean confidence.
        worst: Number of the worst images to show on a contact sheet; None: 24, or 8 for a detector.
        threshold: Minimum score of a detector's boxes. Boxes with lower scores are left out of the
            counts of missed and wrong boxes and of the contact sheet. Average precisions include
            them.
        images: Folder of the images of a COCO json; None: the folder ``images`` beside the json or
            one level above, else the folder of the json.
        skip_broken: Whether images that cannot be read are left out.
        ignore_class_names: Whether only the number of a classifier's classes is compared with that
            of the data.
    """

    batch_size: int | None = None
    augmentations: Sequence[str] = ()
    bins: int = BINS
    worst: int | None = None
    threshold: float = 0.3
    images: Path | None = None
    skip_broken: bool = False
    ignore_class_names: bool = False


def open_data(
    network: Classifier | Detector, name: str, options: EvaluateOptions
) -> ImageDataset | CocoDataset:
    """Opens a data set for a network.

    Args:
        network: Classifier or detector.
        name: For a classifier, a name or path as DATASETS.TEST takes it. For a detector, the name
            of a data set or the path of a COCO json.
        options: Options, of which ``images`` and ``skip_broken`` are used.

    Raises:
        FBNetError: There is no such data set, it is for another kind of network, or augmentations
            or ``images`` are given where they have no effect.
    """
    if isinstance(network, Classifier):
        return build_dataset(name, skip_broken=options.skip_broken)
    if options.augmentations:
        raise EvaluationError("--tta is for classifiers; leave it out for a detector")
    from fbnetv3.config import get_cfg
    from fbnetv3.detection.datasets import build_detection_dataset
    from fbnetv3.detection.formats.opening import open_coco
    from fbnetv3.detection.images import check_images

    path = find_data(name)
    if path is not None and path.suffix.lower() == ".json":
        dataset = open_coco(path, options.images)
    elif options.images is not None:
        raise EvaluationError(
            f"--images has no effect with --data {name}, which is no COCO json; leave it out"
        )
    else:
        dataset = build_detection_dataset(name, get_cfg())
    return check_images(dataset, decode=options.skip_broken, skip_broken=options.skip_broken)


def evaluate_network(
    network: Classifier | Detector,
    data: ImageDataset | CocoDataset,
    folder: Path,
    options: EvaluateOptions,
    advance: Callable[[int], Any] = lambda count: None,
) -> Report:
    """Predicts a data set, and writes tables, pictures and ``scores.json``.

    Args:
        network: Classifier or detector on its device.
        data: Data set, from :func:`open_data`.
        folder: Folder of the files, which is made if it is missing.
        options: Options.
        advance: Function called after each batch with its number of images.

    Raises:
        FBNetError: The classes differ, only one of network and data has several classes per image,
            an image cannot be read, or a file cannot be written.
    """
    if isinstance(network, Classifier):
        assert isinstance(data, ImageDataset)
        report = _classifier(network, data, folder, options, advance)
    else:
        from fbnetv3.evaluation.detectors import detect_dataset, report_boxes

        assert not isinstance(data, ImageDataset)
        size = options.batch_size or DETECTOR_BATCH
        results = detect_dataset(network, data, batch_size=size, advance=advance)
        worst = 8 if options.worst is None else options.worst
        report = report_boxes(results, data, folder, worst=worst, threshold=options.threshold)
    about = {"weights": network.source, "data": data.name}
    write_scores(folder / SCORES, {**about, **report.scores})
    return Report(report.scores, [folder / SCORES, *report.files], report.remarks)


def _classifier(
    classifier: Classifier,
    data: ImageDataset,
    folder: Path,
    options: EvaluateOptions,
    advance: Callable[[int], Any],
) -> Report:
    if classifier.several_labels != data.is_multi_label:
        kinds = ("one class", "several classes")
        raise EvaluationError(
            f"{data.name}: images have {kinds[data.is_multi_label]} each, but {classifier.source} "
            f"was trained on images with {kinds[classifier.several_labels]}; use such images"
        )
    order = order_of_classes(classifier, data, ignore_names=options.ignore_class_names)
    outcomes = predict_dataset(
        classifier,
        data,
        order,
        augmentations=options.augmentations,
        batch_size=options.batch_size or CLASSIFIER_BATCH,
        advance=advance,
    )
    report = report_labels if data.is_multi_label else report_classes
    worst = 24 if options.worst is None else options.worst
    made = report(outcomes, data, folder, bins=options.bins, worst=worst)
    if "tta" in made.scores:
        about = {"augmentations": list(options.augmentations), "views": outcomes.views}
        made.scores["tta"] = {**about, **made.scores["tta"]}
    return made
