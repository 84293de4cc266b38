"""Labels in files, as documents to mutate and readers of these."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import yaml
from PIL import Image

from fbnetv3.data.opening import open_source
from fbnetv3.detection.formats.opening import open_boxes

Read = Callable[[Any, Path], None]


def _picture(folder: Path) -> None:
    if not (folder / "images" / "a.png").exists():
        (folder / "images").mkdir(exist_ok=True)
        Image.new("RGB", (40, 20)).save(folder / "images" / "a.png")


def _text(value: Any) -> str:
    return str(value)[:300].encode("utf-8", "replace").decode()


def _csv(document: Any) -> str:
    rows = [row if isinstance(row, list) else [row] for row in document]
    return "\n".join(",".join('"' + _text(cell).replace('"', "") + '"' for cell in r) for r in rows)


def _xml(document: Any) -> str:
    if isinstance(document, dict):
        pairs = [(_text(key), value) for key, value in document.items()]
        return "".join(f"<{key}>{_xml(value)}</{key}>" for key, value in pairs)
    return escape(_text(document))


def _read_voc(document: Any, folder: Path) -> None:
    _picture(folder)
    (folder / "Annotations").mkdir(exist_ok=True)
    (folder / "Annotations" / "a.xml").write_text(_xml(document))
    open_boxes(folder)


def _read_yolo(document: Any, folder: Path) -> None:
    _picture(folder)
    (folder / "x.yaml").write_text(yaml.safe_dump(document))
    open_boxes(folder / "x.yaml")


def _read_yolo_labels(document: Any, folder: Path) -> None:
    _read_yolo({"train": "images", "names": ["cat"]}, folder)
    (folder / "labels").mkdir(exist_ok=True)
    (folder / "labels" / "a.txt").write_text(_csv(document).replace(",", " ").replace('"', ""))
    open_boxes(folder / "x.yaml")


def _read_open_images(document: Any, folder: Path) -> None:
    _picture(folder)
    (folder / "x.csv").write_text(_csv(document))
    open_boxes(folder / "x.csv")


def _read_labels(document: Any, folder: Path) -> None:
    (folder / "x.csv").write_text(_csv(document))
    open_source(folder / "x.csv")


_BOX = {"xmin": 1, "ymin": 1, "xmax": 10, "ymax": 12}
LABEL_DOCUMENTS: dict[str, tuple[Read, Callable[[], Any]]] = {
    "voc": (
        _read_voc,
        lambda: {
            "annotation": {
                "filename": "a.jpg",
                "size": {"width": 40, "height": 20},
                "object": {"name": "cat", "difficult": 0, "bndbox": dict(_BOX)},
            }
        },
    ),
    "yolo": (_read_yolo, lambda: {"path": ".", "train": "images", "names": {0: "cat", 1: "dog"}}),
    "yolo labels": (_read_yolo_labels, lambda: [[0, 0.5, 0.5, 0.25, 0.25]]),
    "open images": (
        _read_open_images,
        lambda: [
            ["ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax"],
            ["a", "cat", 0.1, 0.5, 0.2, 0.6],
        ],
    ),
    "label table": (
        _read_labels,
        lambda: [["path", "labels"], ["cat/0.jpg", "a|b"], ["dog/0.jpg", "b"]],
    ),
}
