"""Files of predictions: csv with a row per class or box, json of classes, COCO results of boxes."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from fbnetv3.io import atomic_write
from fbnetv3.predictions.annotations import CocoIds
from fbnetv3.predictions.batches import Prediction

CLASS_COLUMNS = ("path", "rank", "class", "probability")
BOX_COLUMNS = ("path", "rank", "class", "score", "left", "top", "right", "bottom")
Add = Callable[[Prediction], None]


@contextmanager
def results_file(path: Path, ids: CocoIds | None, classes: Sequence[str]) -> Iterator[Add]:
    """Yields a function that adds the prediction for an image to a file.

    The file appears, complete, at the end of the ``with`` block. Until then, and after an error, an
    earlier file at this path is unchanged.

    Args:
        path: File to write; its suffix, ``.csv`` or ``.json``, is the format.
        ids: Ids of the images for a detector's results; None for a classifier.
        classes: Names of the network's classes.

    Raises:
        WriteError: The file cannot be written.
        PredictError: The COCO json of the ids lacks a class.
    """
    is_csv = path.suffix.lower() == ".csv"
    categories = {} if ids is None else dict(zip(classes, ids.of_classes(classes), strict=True))
    with (
        atomic_write(path) as temporary,
        # names of files may have bytes that are not UTF-8
        open(temporary, "w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        if is_csv:
            yield _csv_rows(file, BOX_COLUMNS if ids else CLASS_COLUMNS)
            return

        def add(prediction: Prediction) -> None:
            if ids is None:
                append(class_record(prediction))
                return
            for record in coco_records(prediction, ids, categories):
                append(record)

        with _json_list(file) as append:
            yield add


def write_records(path: Path, records: Iterable[Any]) -> None:
    """Writes values as a json list with a line for each, like the json of :func:`results_file`.

    Raises:
        WriteError: The file cannot be written.
    """
    with (
        atomic_write(path) as temporary,
        open(temporary, "w", encoding="utf-8") as file,
        _json_list(file) as append,
    ):
        for record in records:
            append(record)


def _csv_rows(file: IO[str], columns: Sequence[str]) -> Add:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)

    def add(prediction: Prediction) -> None:
        path = str(prediction.image)
        for rank, (name, probability) in enumerate(prediction.classes, 1):
            writer.writerow((path, rank, name, f"{probability:.6f}"))
        for rank, box in enumerate(prediction.boxes, 1):
            edges = [f"{value:.2f}" for value in box.box]
            writer.writerow((path, rank, box.name, f"{box.score:.6f}", *edges))

    return add


@contextmanager
def _json_list(file: IO[str]) -> Iterator[Callable[[Any], None]]:
    """Yields a function that appends a value to a json list in a file, on a line of its own."""
    separator = "[\n"

    def append(value: Any) -> None:
        nonlocal separator
        file.write(separator + json.dumps(value))
        separator = ",\n"

    yield append
    file.write("[]\n" if separator == "[\n" else "\n]\n")


def class_record(prediction: Prediction) -> dict[str, Any]:
    """Returns the path of an image, and its classes with their probabilities."""
    classes = [{"name": name, "score": score} for name, score in prediction.classes]
    return {"image": str(prediction.image), "classes": classes}


def box_record(prediction: Prediction) -> dict[str, Any]:
    """Returns the path of an image, and its boxes: left, top, right and bottom in pixels."""
    boxes = [
        {"name": box.name, "score": float(box.score), "box": [float(value) for value in box.box]}
        for box in prediction.boxes
    ]
    return {"image": str(prediction.image), "boxes": boxes}


def coco_records(
    prediction: Prediction, ids: CocoIds, categories: dict[str, int]
) -> Iterator[dict[str, Any]]:
    """Yields the boxes of an image as COCO results: ``bbox`` is x, y, width, height in pixels.

    Without the ids of a COCO json, a result also has the path of the image (``file_name``) and the
    name of the class (``category_name``).

    Args:
        prediction: Boxes of an image.
        ids: Ids of all images.
        categories: Category id of each class.
    """
    names = {} if ids.known else {"file_name": str(prediction.image)}
    for box in prediction.boxes:
        left, top, right, bottom = box.box
        yield {
            "image_id": ids.image_ids[prediction.number],
            "category_id": categories[box.name],
            "bbox": [left, top, right - left, bottom - top],
            "score": box.score,
            **names,
            **({} if ids.known else {"category_name": box.name}),
        }
