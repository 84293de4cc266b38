"""COCO annotations: read, checked, and as the records that detectron2's mapper takes."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from fbnetv3.data.errors import DataError, some

_XYWH = 1  # detectron2's BoxMode.XYWH_ABS


@dataclass(frozen=True)
class CocoDataset:
    """A detection data set.

    Attributes:
        name: As configs and errors call it.
        json_file: The annotations.
        classes: Names, in the order of their ids.
        category_ids: The json's id of each class.
        records: An image each: ``file_name``, ``image_id``, ``height``, ``width`` in pixels, and
            ``annotations`` with ``bbox`` (x, y, width, height), ``category_id`` (index into
            ``classes``), ``iscrowd``.
        notes: What is unusual, and how it is handled.
    """

    name: str
    json_file: Path
    classes: list[str]
    category_ids: list[int]
    records: list[dict[str, Any]]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.records)

    def replace_records(self, records: list[dict[str, Any]], note: str = "") -> CocoDataset:
        """Returns the data set with other records."""
        notes = (*self.notes, note) if note else self.notes
        return CocoDataset(
            self.name, self.json_file, self.classes, self.category_ids, records, notes
        )

    def ground_truth(self) -> dict[str, Any]:
        """Returns COCO json for an evaluator; annotations are counted from 1.

        pycocotools takes a match with annotation 0 for no match.
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
    """What is wrong with one entry."""


def read_coco(name: str, json_file: Path, image_root: Path) -> CocoDataset:
    """Reads COCO annotations and checks every entry; images are looked at by ``check_images``.

    As COCO defines it: crowd boxes are neither trained on nor counted as misses, images without
    boxes are background. Boxes are cut at the image's edge for training and left as they are for
    evaluation; boxes of no area (official COCO has some) are left out. Keys that are not needed
    (segmentation, keypoints) are ignored.

    Args:
        name: What errors call the data set.
        json_file: The annotations.
        image_root: The folder that ``file_name`` is relative to, and can't lead out of.

    Raises:
        DataError: The file can't be read, or an entry is wrong; names file and id.
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
        more = f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else ""
        raise DataError(f"{where}: {problems[0]}{more}; correct or remove the entries")
    ordered = [records[number] for number in sorted(records)]
    return CocoDataset(
        name, json_file, list(classes.values()), list(classes), ordered, tuple(notes)
    )


def _read_json(name: str, path: Path) -> Mapping[str, Any]:
    try:
        tree = json.loads(path.read_bytes())
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"{name}: cannot read {path}: {reason}; check the path") from error
    except (ValueError, RecursionError, MemoryError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{name}: {path} is no json: {reason}; get it again") from error
    if not isinstance(tree, dict):
        raise DataError(f"{name}: {path} is no COCO json: it holds a {type(tree).__name__}")
    for key in ("images", "annotations", "categories"):
        if not isinstance(tree.get(key), list):
            raise DataError(
                f"{name}: {path} has no list {key!r}; COCO json for detection has images, "
                "annotations and categories"
            )
    return tree


def _entries(tree: Mapping[str, Any], key: str) -> Iterator[dict[str, Any]]:
    for number, entry in enumerate(tree[key]):
        if not isinstance(entry, dict):
            raise _Problem(f"{key}[{number}] is no mapping but {str(entry)[:40]!r}")
        yield entry


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _id(entry: Mapping[str, Any], what: str, key: str = "id") -> int:
    value = entry.get(key)
    if not isinstance(value, int) or not _is_int(value) or abs(value) >= 1 << 53:
        raise _Problem(f"{what} has {key} {str(value)[:40]!r}; an id is a whole number")
    return value


def _refuse_duplicates(what: str, numbers: Iterable[int]) -> None:
    twice = [number for number, count in Counter(numbers).items() if count > 1]
    if twice:
        raise _Problem(f"{what} id {twice[0]} occurs twice ({len(twice)} such ids)")


def _categories(tree: Mapping[str, Any]) -> dict[int, str]:
    entries = list(_entries(tree, "categories"))
    numbers = [_id(entry, "a category") for entry in entries]
    _refuse_duplicates("category", numbers)
    for number, entry in zip(numbers, entries, strict=True):
        if not isinstance(entry.get("name"), str):
            raise _Problem(f"category {number} has no name")
    if not entries:
        raise _Problem("there are no categories")
    found = {n: str(e["name"]) for n, e in zip(numbers, entries, strict=True)}
    return dict(sorted(found.items()))


def _images(tree: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    entries = list(_entries(tree, "images"))
    if not entries:
        raise _Problem("there are no images")
    numbers = [_id(entry, f"image {str(entry.get('file_name'))[:80]!r}") for entry in entries]
    _refuse_duplicates("image", numbers)
    for number, entry in zip(numbers, entries, strict=True):
        file_name = entry.get("file_name")
        if not isinstance(file_name, str) or not file_name or "\0" in file_name:
            raise _Problem(f"image {number} has no file_name")
        _refuse_outside(number, file_name)
        for key in ("width", "height"):
            if not _is_int(entry.get(key)) or entry[key] < 1:
                raise _Problem(
                    f"image {number} ({file_name}) has {key} {str(entry.get(key))[:40]!r}; "
                    "pixels are whole numbers from 1 up"
                )
    return dict(zip(numbers, entries, strict=True))


def _refuse_outside(number: int, file_name: str) -> None:
    path = PurePosixPath(file_name)
    if path.is_absolute() or ".." in path.parts:
        raise _Problem(
            f"image {number} has file_name {file_name[:80]!r}, outside the image folder; allowed: "
            "paths in it, without '..'; correct the json or name another image folder"
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
    """Puts annotations into the records of their images; returns problems and notes."""
    problems: list[str] = []
    empty: list[int] = []
    beyond: list[int] = []
    numbers: list[int] = []
    for position, entry in enumerate(tree["annotations"]):
        try:
            if not isinstance(entry, dict):
                raise _Problem(f"annotations[{position}] is no mapping")
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
        raise _Problem(f"annotation {number} is of image {image_id}, which is not listed")
    record = records[image_id]
    where = f"annotation {number} (image {image_id}, {record['file_name']})"
    category = _id(entry, where, "category_id")
    if category not in index:
        raise _Problem(f"{where} has category {category}; there are {some([*map(str, index)])}")
    box = _box(entry.get("bbox"), where, record)
    crowd = entry.get("iscrowd", 0)
    if crowd not in (0, 1) or not isinstance(crowd, int):
        raise _Problem(f"{where} has iscrowd {str(crowd)[:40]!r}; allowed: 0 and 1")
    area = entry.get("area", box[2] * box[3])
    if not _is_number(area) or area < 0:
        raise _Problem(f"{where} has area {str(area)[:40]!r}; it is a number from 0 up")
    item = {"bbox": box, "bbox_mode": _XYWH, "category_id": index[category]}
    return record, {**item, "iscrowd": int(crowd), "area": float(area), "id": number}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _box(box: Any, where: str, record: Mapping[str, Any]) -> list[float]:
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        raise _Problem(f"{where} has bbox {str(box)[:60]}; it is [x, y, width, height] in pixels")
    x, y, width, height = map(float, box)
    if width < 0 or height < 0:
        raise _Problem(f"{where} has bbox {box} of negative size")
    inside = x < record["width"] and y < record["height"] and x + width >= 0 and y + height >= 0
    if not inside:
        size = f"{record['width']} x {record['height']}"
        raise _Problem(f"{where} has bbox {box} outside the image of {size} pixels")
    return [x, y, width, height]


def _reaches_beyond(box: list[float], record: Mapping[str, Any]) -> bool:
    x, y, width, height = box
    slack = 1.0  # official boxes are rounded
    return (
        min(x, y) < -slack
        or x + width > record["width"] + slack
        or y + height > record["height"] + slack
    )


def _notes(
    records: Mapping[int, dict[str, Any]], empty: list[int], beyond: list[int]
) -> Iterator[str]:
    if empty:
        yield f"{len(empty)} boxes of no area left out: annotation {some([*map(str, empty)])}"
    if beyond:
        yield (
            f"{len(beyond)} boxes reach beyond their image, training cuts them: annotation "
            f"{some([*map(str, beyond)])}"
        )
    bare = sum(not record["annotations"] for record in records.values())
    if bare:
        yield f"{bare} images have no box"
    crowds = sum(item["iscrowd"] for r in records.values() for item in r["annotations"])
    if crowds:
        yield f"{crowds} crowd boxes: not trained on, no misses in evaluation"
