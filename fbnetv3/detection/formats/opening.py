"""Reading boxes in any supported format, recognised by a file's suffix or a folder's files."""

from __future__ import annotations

import json
from pathlib import Path

from fbnetv3.data.errors import DataError
from fbnetv3.detection.coco import CocoDataset, read_coco
from fbnetv3.detection.formats.boxes import Box, BoxSet
from fbnetv3.detection.formats.open_images import COLUMNS, read_open_images
from fbnetv3.detection.formats.voc import read_voc
from fbnetv3.detection.formats.yolo import read_yolo, splits_in
from fbnetv3.io import atomic_write, open_regular

# Names of the yaml in a folder of YOLO.
_YAMLS = ("data.yaml", "dataset.yaml", "data.yml", "dataset.yml")
FORMATS = (
    "a COCO json, a folder or ImageSets/Main/*.txt of Pascal VOC, the yaml of YOLO, or a CSV of "
    "Open Images"
)
"""The supported formats, for error messages."""


def format_of(path: Path) -> str:
    """Returns the format of the boxes at a path: coco, voc, yolo, open_images, or "" for none.

    The format of a file follows from its suffix; a CSV file must have the columns of Open Images,
    too. The format of a folder follows from the files in it.

    Raises:
        OSError: A CSV file cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix == ".json":
        return "coco"
    if suffix in (".yaml", ".yml"):
        return "yolo"
    if suffix == ".txt":
        return "voc"
    if suffix == ".csv":
        with open_regular(path, 2**32) as file:
            header = file.readline(2**16).decode("utf-8", "replace")
        return "open_images" if all(name in header for name in COLUMNS) else ""
    if not path.is_dir():
        return ""
    if any((path / name).is_file() for name in _YAMLS):
        return "yolo"
    folder = path / "Annotations"
    is_voc = any(next(f.glob("*.xml"), None) for f in (folder, path) if f.is_dir())
    return "voc" if is_voc else ""


def splits_of(path: Path) -> tuple[str, ...]:
    """Returns the splits of a YOLO data set, which its yaml names.

    Args:
        path: The yaml, or the folder that it is in.

    Raises:
        DataError: The file is no yaml of YOLO, or cannot be read.
    """
    return splits_in(_yaml_of(path))


def _yaml_of(path: Path) -> Path:
    names = [path / name for name in _YAMLS] if path.is_dir() else [path]
    return next((name for name in names if name.is_file()), path)


def open_boxes(path: Path, images: Path | None = None, split: str = "train") -> BoxSet:
    """Reads the boxes at a path.

    Args:
        path: File or folder in one of ``FORMATS``.
        images: Folder of the images; None: the folder that the format prescribes (COCO: the folder
            ``images`` beside the json or one level above, else the folder of the json). Not used
            for YOLO, whose yaml names the folders.
        split: Split of a YOLO data set: ``train``, ``val`` or ``test``.

    Raises:
        DataError: The path is missing, is in none of ``FORMATS``, or its content is not valid.
    """
    try:
        kind = format_of(path)
        if not path.exists():
            raise DataError(f"{path}: there is no such file or folder")
        if kind == "coco":
            return _from_coco(path, images)
        if kind == "yolo":
            return read_yolo(_yaml_of(path), split)
        if kind in ("voc", "open_images"):
            return (read_voc if kind == "voc" else read_open_images)(path, images)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{path}: cannot be read ({reason}); allowed: {FORMATS}") from error
    raise DataError(f"{path}: no boxes in a format that is known; allowed: {FORMATS}")


def open_coco(path: Path, images: Path | None = None) -> CocoDataset:
    """Reads a COCO json.

    Args:
        path: The file.
        images: Folder of the images; None: the folder ``images`` beside the json or one level
            above, else the folder of the json.

    Raises:
        DataError: The file cannot be read, or an entry is wrong.
    """
    return read_coco(path.name, path, images or _images_beside(path))


def _images_beside(path: Path) -> Path:
    beside = (path.parent / "images", path.parent.parent / "images")
    return next((folder for folder in beside if folder.is_dir()), path.parent)


def _from_coco(path: Path, images: Path | None) -> BoxSet:
    root = images or _images_beside(path)
    dataset = open_coco(path, root)
    result = BoxSet(path, root, list(dataset.classes))
    for record in dataset.records:
        boxes = []
        for item in record["annotations"]:
            x, y, width, height = item["bbox"]
            crowd = bool(item["iscrowd"])
            boxes.append(Box(item["category_id"], x, y, x + width, y + height, crowd))
        file = Path(record["file_name"]).relative_to(root).as_posix()
        size = (record["width"], record["height"])
        result.add(f"{path}, image {record['image_id']}", file, size, boxes)
    return result.checked()


def write_coco(boxes: BoxSet, path: Path) -> None:
    """Writes a set of boxes as COCO JSON.

    Raises:
        WriteError: The file cannot be written.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(boxes.to_coco()), encoding="utf-8")
