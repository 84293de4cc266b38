"""COCO annotations, read and checked, as the records that detectron2's mapper accepts."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from fbnetv3.data.errors import (
    DataError,
    MissingDataError,
    all_problems,
    class_counts,
    plural,
    some,
)
from fbnetv3.detection.formats.recognition import other_format
from fbnetv3.io import read_file

_MAX_PIXELS = 1 << 31  # limit of a width or height
_LARGEST = 1e150  # limit of other numbers, so that the product of two is a finite float
_XYWH = 1  # detectron2's BoxMode.XYWH_ABS


@dataclass(frozen=True)
class CocoDataset:
    """A detection data set.

    Attributes:
        name: Name of the data set in configs and error messages.
        json_file: File of the annotations.
        classes: Names of the classes, in the order of their ids.
        category_ids: Id of each class in the JSON file.
        records: One mapping per image with ``file_name``, ``image_id``, ``height`` and ``width``
            in pixels, and ``annotations``: mappings with ``bbox`` (x, y, width, height in pixels),
            ``category_id`` (index into ``classes``), ``area`` and ``iscrowd``.
        notes: Descriptions of unusual entries and of how they are handled.
    """

    name: str
    json_file: Path
    classes: list[str]
    category_ids: list[int]
    records: list[dict[str, Any]]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.records)

    def summary(self) -> str:
        """Returns the name, the numbers of images and boxes, and the boxes of up to ten classes."""
        counts = [0] * len(self.classes)
        for record in self.records:
            for item in record["annotations"]:
                counts[item["category_id"]] += 1
        images, boxes = plural(len(self), "image"), plural(sum(counts), "box", "es")
        return f"{self.name}: {images}, {boxes}, {class_counts(self.classes, counts)}"

    def replace_records(self, records: list[dict[str, Any]], note: str = "") -> CocoDataset:
        """Returns a copy with the given records, and with ``note`` added unless it is empty."""
        notes = (*self.notes, note) if note else self.notes
        return CocoDataset(
            self.name, self.json_file, self.classes, self.category_ids, records, notes
        )

    def ground_truth(self) -> dict[str, Any]:
        """Returns the data set as COCO JSON for an evaluator.

        The ids of annotations start at 1, because pycocotools treats a match with annotation 0 as
        no match.
        """
        annotations = [
            {
                "id": 0,
                "image_id": record["image_id"],
                "category_id": self.category_ids[item["category_id"]],
                "bbox": item["bbox"],
                "area": item["area"],
                "iscrowd": item["iscrowd"],
            }
            for record in self.records
            for item in record["annotations"]
        ]
        for number, item in enumerate(annotations, 1):
            item["id"] = number
        names = zip(self.category_ids, self.classes, strict=True)
        return {
            "images": [
                {"id": r["image_id"], "height": r["height"], "width": r["width"]}
                for r in self.records
            ],
            "annotations": annotations,
            "categories": [{"id": number, "name": name} for number, name in names],
        }


class _Problem(Exception):
    """An entry of the JSON file is wrong."""


def read_coco(name: str, json_file: Path, image_root: Path) -> CocoDataset:
    """Returns the data set of a COCO JSON file, after checking every entry.

    The image files themselves are checked by ``check_images`` (detection/images.py). Following
    COCO's definitions, crowd boxes are neither trained on nor counted as misses, and images without
    boxes are background. Boxes are clipped to the image for training, but not for evaluation. Boxes
    without area are left out (official COCO has some). Keys that are not needed, such as
    segmentations, are ignored.

    Args:
        name: Name of the data set in error messages.
        json_file: File of the annotations.
        image_root: Folder that ``file_name`` is relative to. Paths that lead out of it are refused.

    Raises:
        DataError: The file cannot be read, or an entry is wrong; the message contains the path of
            the file, and the id of the entry unless this id is missing or wrong itself.
    """
    tree = _read_json(name, json_file)
    where = f"{name}: {json_file}"
    try:
        classes = _categories(tree)
        images = _images(tree)
    except _Problem as problem:
        raise DataError(f"{where}: {problem}") from None
    records = {number: _record(image, image_root) for number, image in images.items()}
    problems, notes = _add_annotations(tree, records, {c: i for i, c in enumerate(classes)})
    if problems:
        raise DataError(f"{where}: {all_problems(problems)}; correct or remove the entries")
    ordered = [records[number] for number in sorted(records)]
    return CocoDataset(
        name, json_file, list(classes.values()), list(classes), ordered, tuple(notes)
    )


def _read_json(name: str, path: Path) -> Mapping[str, Any]:
    try:
        content = read_file(path, "annotations")
        tree = json.loads(content)
    except OSError as error:
        if path.is_dir() and (other := other_format(path)):
            raise DataError(f"{name}: {path} is no COCO JSON: {other}") from error
        reason = error.strerror or str(error)
        error_type = MissingDataError if isinstance(error, FileNotFoundError) else DataError
        raise error_type(f"{name}: cannot read {path}: {reason}; check the path") from error
    except (ValueError, RecursionError, MemoryError) as error:
        reason = " ".join(str(error).split())[:120]
        advice = "give the file of COCO annotations (instances_*.json), or download it again"
        other = other_format(path, content) or f"{reason}; {advice}"
        raise DataError(f"{name}: {path} is not JSON: {other}") from error
    if not isinstance(tree, dict):
        kind = "list of results" if isinstance(tree, list) else type(tree).__name__
        raise DataError(f"{name}: {path} is not COCO JSON: it holds a {kind}, not a mapping")
    for key in ("images", "annotations", "categories"):
        if not isinstance(tree.get(key), list):
            raise DataError(
                f"{name}: {path} has no list {key!r}; COCO JSON for detection needs images, "
                "annotations and categories"
            )
    return tree


def _entries(tree: Mapping[str, Any], key: str) -> Iterator[dict[str, Any]]:
    for number, entry in enumerate(tree[key]):
        if not isinstance(entry, dict):
            raise _Problem(f"{key}[{number}] is {str(entry)[:40]!r} instead of a mapping")
        yield entry


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _id(entry: Mapping[str, Any], where: str, key: str = "id") -> int:
    value = entry.get(key)
    if not isinstance(value, int) or not _is_int(value) or abs(value) >= 1 << 53:
        raise _Problem(f"{where} has {key} {str(value)[:40]!r}; allowed: integers below 2^53")
    return value


def _refuse_duplicates(kind: str, numbers: Iterable[int]) -> None:
    duplicates = [number for number, count in Counter(numbers).items() if count > 1]
    if duplicates:
        others = f" (and {len(duplicates) - 1} more ids)" if len(duplicates) > 1 else ""
        raise _Problem(f"{kind} id {duplicates[0]} is used more than once{others}")


def _categories(tree: Mapping[str, Any]) -> dict[int, str]:
    entries = list(_entries(tree, "categories"))
    numbers = [_id(entry, "a category") for entry in entries]
    _refuse_duplicates("category", numbers)
    for number, entry in zip(numbers, entries, strict=True):
        if not isinstance(entry.get("name"), str):
            raise _Problem(f"category {number} has no name")
    if not entries:
        raise _Problem("there are no categories")
    names = {n: str(e["name"]) for n, e in zip(numbers, entries, strict=True)}
    return dict(sorted(names.items()))


def _images(tree: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    entries = list(_entries(tree, "images"))
    if not entries:
        raise _Problem("there are no images")
    numbers = [_id(entry, f"image {str(entry.get('file_name'))[:80]!r}") for entry in entries]
    _refuse_duplicates("image", numbers)
    for number, entry in zip(numbers, entries, strict=True):
        file_name = entry.get("file_name")
        if not isinstance(file_name, str) or not file_name or not _is_name(file_name):
            raise _Problem(f"image {number} has no file_name")
        _refuse_outside(number, file_name)
        for key in ("width", "height"):
            if not _is_int(entry.get(key)) or not 1 <= entry[key] < _MAX_PIXELS:
                raise _Problem(
                    f"image {number} ({file_name}) has {key} {str(entry.get(key))[:40]!r}; "
                    f"allowed: integers >= 1, below {_MAX_PIXELS}"
                )
    return dict(zip(numbers, entries, strict=True))


def _is_name(file_name: str) -> bool:
    """Returns whether a string can be the name of a file."""
    try:
        return b"\0" not in os.fsencode(file_name)
    except UnicodeEncodeError:  # half of a surrogate pair
        return False


def _refuse_outside(number: int, file_name: str) -> None:
    path = PurePosixPath(file_name)
    if path.is_absolute() or ".." in path.parts:
        raise _Problem(
            f"image {number} has file_name {file_name[:80]!r}, outside of the image folder; "
            "allowed: relative paths without '..'; correct the JSON file or give another image "
            "folder"
        )


def _record(image: Mapping[str, Any], root: Path) -> dict[str, Any]:
    return {
        "file_name": str(root / image["file_name"]),
        "image_id": image["id"],
        "height": image["height"],
        "width": image["width"],
        "annotations": [],
    }


def _add_annotations(
    tree: Mapping[str, Any], records: dict[int, dict[str, Any]], index: Mapping[int, int]
) -> tuple[list[str], list[str]]:
    """Adds the annotations to the records of their images, and returns problems and notes."""
    problems: list[str] = []
    empty: list[int] = []
    beyond: list[int] = []
    numbers: list[int] = []
    for position, entry in enumerate(tree["annotations"]):
        try:
            if not isinstance(entry, dict):
                raise _Problem(f"annotations[{position}] is not a mapping")
            number = _id(entry, f"annotations[{position}]")
            numbers.append(number)
            record, item = _annotation(number, entry, records, index)
        except _Problem as problem:
            problems.append(str(problem))
            continue
        if min(item["bbox"][2:]) == 0:
            empty.append(number)
            continue
        if _reaches_beyond(item["bbox"], record):
            beyond.append(number)
        record["annotations"].append(item)
    try:
        _refuse_duplicates("annotation", numbers)
    except _Problem as problem:
        problems.append(str(problem))
    return problems, list(_notes(records, empty, beyond))


def _annotation(
    number: int,
    entry: Mapping[str, Any],
    records: Mapping[int, dict[str, Any]],
    index: Mapping[int, int],
) -> tuple[dict[str, Any], dict[str, Any]]:
    image_id = _id(entry, f"annotation {number}", "image_id")
    if image_id not in records:
        raise _Problem(f"annotation {number} has image_id {image_id}, which no image has")
    record = records[image_id]
    where = f"annotation {number} (image {image_id}, {record['file_name']})"
    category = _id(entry, where, "category_id")
    if category not in index:
        allowed = some([*map(str, index)])
        raise _Problem(f"{where} has category_id {category}; allowed: {allowed}")
    box = _box(entry.get("bbox"), where, record)
    crowd = entry.get("iscrowd", 0)
    if not _is_int(crowd) or crowd not in (0, 1):
        raise _Problem(f"{where} has iscrowd {str(crowd)[:40]!r}; allowed: 0 and 1")
    area = entry.get("area", box[2] * box[3])
    if not _is_number(area) or area < 0:
        raise _Problem(f"{where} has area {str(area)[:40]!r}; allowed: numbers >= 0")
    item = {"bbox": box, "bbox_mode": _XYWH, "category_id": index[category]}
    return record, {**item, "iscrowd": int(crowd), "area": float(area), "id": number}


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) < _LARGEST  # also False for NaN, and for integers beyond the range of floats


def _box(box: Any, where: str, record: Mapping[str, Any]) -> list[float]:
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        raise _Problem(
            f"{where} has bbox {str(box)[:60]}; allowed: [x, y, width, height] in pixels"
        )
    x, y, width, height = map(float, box)
    if width < 0 or height < 0:
        raise _Problem(f"{where} has bbox {box}, whose width or height is negative")
    inside = x < record["width"] and y < record["height"] and x + width >= 0 and y + height >= 0
    if not inside:
        size = f"{record['width']} x {record['height']}"
        raise _Problem(f"{where} has bbox {box}, outside of the image of {size} pixels")
    return [x, y, width, height]


def _reaches_beyond(box: list[float], record: Mapping[str, Any]) -> bool:
    x, y, width, height = box
    slack = 1.0  # the official boxes are rounded
    return (
        min(x, y) < -slack
        or x + width > record["width"] + slack
        or y + height > record["height"] + slack
    )


def _notes(
    records: Mapping[int, dict[str, Any]], empty: list[int], beyond: list[int]
) -> Iterator[str]:
    if empty:
        numbers = some([*map(str, empty)])
        yield f"{len(empty)} boxes without area are left out: annotations {numbers}"
    if beyond:
        yield (
            f"{len(beyond)} boxes extend beyond their image and are clipped in training: "
            f"annotations {some([*map(str, beyond)])}"
        )
    background = sum(not record["annotations"] for record in records.values())
    if background:
        yield f"{background} images have no box"
    crowds = sum(item["iscrowd"] for r in records.values() for item in r["annotations"])
    if crowds:
        yield f"{crowds} crowd boxes are not trained on and do not count as misses in evaluation"
