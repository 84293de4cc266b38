"""Annotations of Open Images: a CSV with one box per line, in fractions of the image."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from fbnetv3.data.errors import DataError
from fbnetv3.detection.formats.boxes import Box, BoxSet
from fbnetv3.image_files import is_image, list_folder
from fbnetv3.io import read_text

COLUMNS = ("ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax")
"""Columns that a CSV must have, in any order."""
_DESCRIPTIONS = "class-descriptions*.csv"  # pattern of the file of class names
_TOLERANCE = 0.01  # share of the image by which a box may leave it, as its numbers are rounded


def read_open_images(path: Path, images: Path | None = None) -> BoxSet:
    """Reads a CSV with the columns of Open Images.

    ``IsGroupOf`` 1 makes a box a crowd. A class is named by its DisplayName in
    the first ``class-descriptions*.csv`` (LabelName, DisplayName) beside the file, or else by its
    LabelName.

    Args:
        path: The CSV.
        images: Folder of the images; None: ``images`` beside the file, or the folder of the file.

    Raises:
        DataError: The file or the names of the classes cannot be read, a column is missing, or the
            file yields no image or no class.
        OSError: The folder of the images cannot be read.
    """
    beside = path.parent / "images"
    root = images or (beside if beside.is_dir() else path.parent)
    result, names = BoxSet(path, root), _class_names(path)
    by_stem = {Path(name).stem: name for name in list_folder(root).files if is_image(name)}
    rows: dict[str, list[tuple[int, Mapping[str, str]]]] = {}
    for number, row in _rows(path):
        rows.setdefault(row["ImageID"] or "", []).append((number, row))
    for image, lines in rows.items():
        where = f"{path}, line {lines[0][0]}"
        name = by_stem.get(image) or by_stem.get(Path(image).stem)
        if name is None:
            result.fault(f"{where}: image {image[:80]!r} is not in {root}")
            continue
        size = result.size_of(where, name)
        if size is not None:
            boxes = [_box(result, path, number, row, names, size) for number, row in lines]
            result.add(where, name, None, [box for box in boxes if box])
    return result.checked().with_sorted_classes()


def _rows(path: Path) -> list[tuple[int, Mapping[str, str]]]:
    """Returns the rows of a CSV, each with the number of the line on which it ends."""
    try:
        reader = csv.DictReader(io.StringIO(read_text(path, "annotations")))
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise DataError(f"{path}: lacks the columns {', '.join(missing)} of Open Images")
        return [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV: {error}") from error


def _class_names(path: Path) -> dict[str, str]:
    for file in sorted(path.parent.glob(_DESCRIPTIONS)):
        try:
            rows = csv.reader(io.StringIO(read_text(file, "record")))
            return {row[0]: row[1] for row in rows if len(row) > 1}
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{file}: cannot be read as CSV: {error}") from error
    return {}


def _box(
    result: BoxSet,
    path: Path,
    number: int,
    row: Mapping[str, str],
    names: Mapping[str, str],
    size: tuple[int, int],
) -> Box | None:
    label = (row["LabelName"] or "").strip()
    try:
        left, right, top, bottom = (float(row[key]) for key in COLUMNS[2:])
    except (TypeError, ValueError):
        result.fault(f"{path}, line {number}: XMin, XMax, YMin and YMax are not all numbers")
        return None
    edges = (left, right, top, bottom)
    if not label or not all(-_TOLERANCE <= edge <= 1 + _TOLERANCE for edge in edges):
        result.fault(f"{path}, line {number}: no LabelName, or edges that are not from 0 to 1")
        return None
    width, height = size
    crowd = row.get("IsGroupOf") == "1"
    index = result.label(names.get(label, label))
    return Box(index, left * width, top * height, right * width, bottom * height, crowd)
