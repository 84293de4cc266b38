"""Checks of data sets of images or boxes: counts per class, faults, a picture of samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from fbnetv3.data import ImageDataset, build_dataset, find_broken, read_image
from fbnetv3.data.contact_sheet import LabelledBox, contact_sheet, samples_by_class
from fbnetv3.data.datasets import find_data
from fbnetv3.data.errors import DataError, class_counts, plural
from fbnetv3.data.labels import class_counts_of
from fbnetv3.detection.coco import CocoDataset
from fbnetv3.detection.formats.boxes import BoxSet
from fbnetv3.detection.formats.opening import format_of, open_boxes

SAMPLES = 24
"""Largest number of images in the picture of samples."""


@dataclass(frozen=True)
class Checked:
    """The result of a check.

    Attributes:
        summary: Name, number of images, and number of images or boxes of each class.
        faults: One line for each fault, such as a box that cannot be read, or an image that cannot
            be decoded.
        picture: Samples with their classes and boxes.
        broken: Faults of the images that cannot be decoded; empty for a data set of boxes, where
            ``faults`` alone has them.
    """

    summary: str
    faults: list[str]
    picture: Image.Image
    broken: tuple[str, ...] = ()


def check_data(name: str, images: Path | None = None, split: str = "train") -> Checked:
    """Decodes all images of a data set, and checks its labels.

    Args:
        name: Name or path of a data set of images or boxes.
        images: Folder of the images of a data set of boxes; None: the folder that its format
            prescribes, see :func:`fbnetv3.detection.formats.opening.open_boxes`.
        split: Split of a YOLO data set: ``train``, ``val`` or ``test``.

    Raises:
        DataError: The data set cannot be opened.
    """
    path = find_data(name)
    try:
        has_boxes = path is not None and bool(format_of(path))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    if path is not None and has_boxes:
        return check_boxes(open_boxes(path, images, split))
    return check_images(build_dataset(name))


def check_boxes(boxes: BoxSet) -> Checked:
    """Decodes all images of a set of boxes, and draws samples."""
    faults = list(boxes.faults)
    shown: list[tuple[Image.Image, str, Sequence[LabelledBox]]] = []
    chosen = samples_by_class([{b.label for b in i.boxes} for i in boxes.images], SAMPLES)
    for number, image in enumerate(boxes.images):
        try:
            pixels = read_image(boxes.root / image.file)
        except DataError as error:
            faults.append(str(error))
            continue
        if number in chosen:
            edges = [(b.left, b.top, b.right, b.bottom, b.label) for b in image.boxes]
            names = sorted({boxes.classes[b.label] for b in image.boxes})
            shown.append((pixels, ", ".join(names), edges))
    title = _title(str(boxes.path), len(shown), len(boxes.images))
    return Checked(boxes.summary(), faults, contact_sheet(shown, title, boxes.classes))


def _title(name: str, shown: int, images: int) -> str:
    """Returns the title of a sheet of samples."""
    return f"{name}: {shown} of {plural(images, 'image')}, one of each class in turn"


def picture_of(dataset: CocoDataset) -> Image.Image:
    """Returns a picture of samples of a detection data set, whose images must be readable."""
    labels = [{item["category_id"] for item in r["annotations"]} for r in dataset.records]
    tiles = []
    for index in samples_by_class(labels, SAMPLES):
        record, boxes = dataset.records[index], []
        for item in record["annotations"]:
            x, y, width, height = item["bbox"]
            boxes.append((x, y, x + width, y + height, item["category_id"]))
        text = ", ".join(sorted(dataset.classes[c] for c in labels[index]))
        tiles.append((read_image(record["file_name"]), text, boxes))
    title = _title(dataset.name, len(tiles), len(dataset))
    return contact_sheet(tiles, title, dataset.classes)


def check_images(dataset: ImageDataset) -> Checked:
    """Decodes all images of a classification data set, and draws samples."""
    several = dataset.is_multi_label
    labels = [tuple(t) if several else (t,) for t in dataset.targets]
    broken = find_broken(dataset)
    chosen = [i for i in samples_by_class(labels, SAMPLES + len(broken)) if i not in broken]
    tiles = [
        (dataset.image(i), ", ".join(dataset.classes[c] for c in labels[i]), ())
        for i in chosen[:SAMPLES]
    ]
    counts = class_counts_of(dataset)
    text = class_counts(dataset.classes, counts, len(counts))
    summary = f"{dataset.name}: {plural(len(dataset), 'image')}, {text}"
    faults = [*broken.values()]
    if len(dataset.classes) < 2 and not several:
        faults.append(f"{dataset.name}: there is one class only, so that nothing can be learned")
    sheet = contact_sheet(tiles, _title(dataset.name, len(tiles), len(dataset)))
    return Checked(summary, faults, sheet, tuple(broken.values()))
