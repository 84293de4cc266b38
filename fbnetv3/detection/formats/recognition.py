"""Recognition of other formats in files that are given as COCO json, for error messages."""

from __future__ import annotations

from pathlib import Path

from fbnetv3.detection.formats.open_images import COLUMNS

_CONVERT = "convert it with: fbnetv3-data convert"
_HEAD = 4096  # number of bytes at the start of a file by which its format is recognised
_YOLO_NUMBERS = 5  # class, x, y, width and height; polygons have more


def other_format(path: Path, content: bytes = b"") -> str:
    """Returns the format of a file or folder and what to do; "" if it is not recognised.

    Args:
        path: The file or folder.
        content: Content of the file; not used for a folder.
    """
    if path.is_dir():
        return _of_folder(path)
    head = content[:_HEAD].removeprefix(b"\xef\xbb\xbf").lstrip()
    if not head:
        return "it is empty; download it again"
    if head.startswith(b"<"):
        return _of_markup(path, head)
    if head.startswith((b"PK\x03\x04", b"\x1f\x8b")):
        return "it is an archive, which must be unpacked"
    return _of_text(path, head.decode("utf-8", "replace").splitlines())


def _of_folder(path: Path) -> str:
    if any(next(folder.glob("*.xml"), None) for folder in (path / "Annotations", path)):
        return f"it is a folder of Pascal VOC; {_CONVERT} {_voc_folder(path)} boxes.json"
    if yamls := sorted(p for p in path.iterdir() if p.suffix in (".yaml", ".yml")):
        yaml = next((p for p in yamls if p.stem in ("data", "dataset")), yamls[0])
        return f"it is a folder of YOLO; {_CONVERT} {yaml} boxes.json"
    if next(path.glob("*.txt"), None):
        return _of_yolo()
    return ""


def _of_markup(path: Path, head: bytes) -> str:
    if b"<html" in head.lower() or b"<!doctype html" in head.lower():
        return "it is a web page; download the file itself"
    if b"<annotation" in head:
        return (
            "it is XML of Pascal VOC, with the boxes of one image; convert the folder of all files "
            f"with: fbnetv3-data convert {_voc_folder(path.parent)} boxes.json"
        )
    return "it is XML, but not of Pascal VOC"


def _voc_folder(folder: Path) -> Path:
    return folder.parent if folder.name == "Annotations" else folder


def _of_text(path: Path, lines: list[str]) -> str:
    if all(name in lines[0] for name in COLUMNS):
        return f"it is a CSV of Open Images; {_CONVERT} {path} boxes.json"
    if any(line.startswith("names:") for line in lines):
        return f"it is the yaml of a data set of YOLO; {_CONVERT} {path} boxes.json"
    # the last line may be cut off
    full = [line.split() for line in lines[: max(1, len(lines) - 1)] if line.strip()]
    if all(len(words) >= _YOLO_NUMBERS and all(map(_is_number, words)) for words in full):
        return _of_yolo()
    if path.suffix == ".txt" and path.parent.name == "Main":  # in ImageSets/Main
        return f"it is a list of images of Pascal VOC; {_CONVERT} {path} boxes.json"
    return ""


def _of_yolo() -> str:
    return (
        "these are labels of YOLO, with the boxes of one image per file; convert the data set "
        "with the yaml of its folders and class names: fbnetv3-data convert data.yaml boxes.json"
    )


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
