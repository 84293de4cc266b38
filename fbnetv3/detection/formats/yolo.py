"""Annotations of YOLO: one text file per image, and a yaml of folders and class names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from fbnetv3.data.errors import DataError
from fbnetv3.detection.formats.boxes import Box, BoxSet
from fbnetv3.image_files import is_image, list_folder
from fbnetv3.io import read_text
from fbnetv3.plain_yaml import YamlError, parse_yaml

_MAX_CLASSES = 10_000  # largest number of class names in a yaml
_TOLERANCE = 0.01  # share of the image by which a box may leave it, as its numbers are rounded


SPLITS = ("train", "val", "test")
"""Keys of a yaml that name the folders of images."""


def splits_in(path: Path) -> tuple[str, ...]:
    """Returns the splits that a yaml names.

    Raises:
        DataError: The file is no yaml of YOLO, or cannot be read.
    """
    tree = _tree(path)
    return tuple(key for key in SPLITS if tree.get(key))


def read_yolo(path: Path, split: str = "train") -> BoxSet:
    """Reads a split of a data set.

    A label is a line ``CLASS X Y WIDTH HEIGHT``, where X and Y are the centre of the box, or
    ``CLASS`` and the corners of a polygon, which becomes its bounding box. The numbers are
    fractions of the width and height of the image. The labels of ``images/a.jpg`` are in
    ``labels/a.txt``; if an image is in no folder ``images``, they are beside the image. An image
    without labels has no boxes. Images and labels that are not allowed or cannot be read are left
    out, and listed in ``faults`` of the result.

    Args:
        path: Yaml with the class names ``names``, and the image folder (or a list of folders) of
            each split. The folders are relative to the folder ``path`` in the yaml, or else to the
            folder of the yaml.
        split: Key of the yaml: ``train``, ``val`` or ``test``.

    Raises:
        DataError: The yaml is not one of YOLO, a folder is missing or outside of the folder of the
            yaml, or there are no images.
        OSError: A folder of images cannot be read.
    """
    tree = _tree(path)
    classes = _names(path, tree.get("names"))
    base = _inside(path, path.parent, tree.get("path") or ".", "path")
    listed = tree.get(split)
    entries = listed if isinstance(listed, list) else [listed]
    if not entries or not all(isinstance(entry, str) and entry for entry in entries):
        known = ", ".join(key for key in SPLITS if tree.get(key)) or "none"
        raise DataError(f"{path}: there is no folder of split {split!r}; allowed: {known}")
    folders = [_inside(path, base, entry, split) for entry in entries]
    if not all(folder.is_relative_to(base) for folder in folders):
        base = path.parent.resolve()
    result = BoxSet(path, base, list(classes))
    for folder in folders:
        if not folder.is_dir():
            raise DataError(f"{path}: {split}: {folder} is not a folder of images")
        for name in sorted(filter(is_image, list_folder(folder).files)):
            _add(result, (folder / name).relative_to(base).as_posix())
    return result.checked()


def _tree(path: Path) -> Mapping[str, Any]:
    try:
        tree = parse_yaml(read_text(path, "config"))
    except (YamlError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a yaml of YOLO: {' '.join(str(error).split())}") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    if not isinstance(tree, Mapping):
        raise DataError(f"{path}: not a yaml of YOLO, which has the keys names, train and val")
    return tree


def _names(path: Path, names: Any) -> list[str]:
    if isinstance(names, Mapping):
        numbers = sorted(names, key=str)
        if all(type(n) is int for n in numbers) and sorted(numbers) == list(range(len(names))):
            names = [names[number] for number in range(len(names))]
    is_list = isinstance(names, list) and 0 < len(names) <= _MAX_CLASSES
    if not is_list or not all(isinstance(name, str | int) for name in names):
        raise DataError(
            f"{path}: names {str(names)[:60]!r} is not allowed; allowed: a list of class names (1 "
            f"to {_MAX_CLASSES}), or a mapping from 0, 1, ... to names"
        )
    return [str(name) for name in names]


def _inside(path: Path, base: Path, entry: Any, key: str) -> Path:
    """Returns a folder that the yaml names, which must not lead out of the yaml's folder."""
    if not isinstance(entry, str) or "\0" in entry:
        raise DataError(f"{path}: {key}: {str(entry)[:60]!r} is not the path of a folder")
    folder = (base / entry).resolve()
    top = path.parent.resolve()
    if not folder.is_relative_to(top):
        # Roboflow writes ../train/images for a folder beside the yaml
        folder = (base / entry.replace("../", "", 1)).resolve()
    if not folder.is_relative_to(top):
        raise DataError(
            f"{path}: {key}: {entry[:80]!r} is outside of the folder of the yaml; move the yaml to "
            "the folder of the data set, with relative paths"
        )
    return folder


def _add(result: BoxSet, image: str) -> None:
    parts = list(PurePosixPath(image).parts)
    folders = [i for i, part in enumerate(parts[:-1]) if part == "images"]
    if folders:
        parts[folders[-1]] = "labels"
    file = result.root.joinpath(*parts).with_suffix(".txt")
    size = result.size_of(str(file), image)
    if size is None:
        return
    boxes: list[Box] = []
    try:
        lines = read_text(file, "record").splitlines() if file.exists() else []
    except (OSError, UnicodeDecodeError) as error:
        result.fault(f"{file}: cannot be read: {error}")
        return
    for number, line in enumerate(lines, 1):
        if line.strip():
            box = _box(result, f"{file}, line {number}", line.split(), size)
            boxes += [box] if box else []
    result.add(str(file), image, None, boxes)


def _box(result: BoxSet, where: str, words: list[str], size: tuple[int, int]) -> Box | None:
    try:
        label, values = int(words[0]), [float(word) for word in words[1:]]
    except ValueError:
        result.fault(f"{where}: {' '.join(words)[:60]!r} is not CLASS X Y WIDTH HEIGHT")
        return None
    if not 0 <= label < len(result.classes):
        count = len(result.classes)
        result.fault(f"{where}: class {label} is unknown; allowed: 0 to {count - 1}")
        return None
    if len(values) == 4:
        x, y, wide, tall = values
        edges = (x - wide / 2, y - tall / 2, x + wide / 2, y + tall / 2)
    elif len(values) >= 6 and len(values) % 2 == 0:
        edges = (min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]))
    else:
        result.fault(
            f"{where}: {len(values)} numbers after the class; allowed: 4, or a polygon's 6, 8, ..."
        )
        return None
    if not all(-_TOLERANCE <= edge <= 1 + _TOLERANCE for edge in edges):
        result.fault(f"{where}: the box leaves the image; allowed: edges from 0 to 1")
        return None
    width, height = size
    return Box(label, edges[0] * width, edges[1] * height, edges[2] * width, edges[3] * height)
