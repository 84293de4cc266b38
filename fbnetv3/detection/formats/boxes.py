"""Images with boxes, as the readers of all formats return them, and their COCO form."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from fbnetv3.data.decode import read_image_file, shown_size_of
from fbnetv3.data.errors import DataError, class_counts, plural

MAX_FAULTS = 10_000
"""Largest number of messages about faulty images and boxes that a set keeps."""


@dataclass(frozen=True)
class Box:
    """A box in pixels, which may reach beyond its image; :meth:`BoxSet.add` omits invalid boxes.

    Attributes:
        label: Index of its class.
        left: Left edge.
        top: Upper edge.
        right: Right edge.
        bottom: Lower edge.
        crowd: Whether the box is neither trained on nor counted as a miss: COCO's ``iscrowd``,
            VOC's ``difficult`` and Open Images' ``IsGroupOf``.
    """

    label: int
    left: float
    top: float
    right: float
    bottom: float
    crowd: bool = False


@dataclass(frozen=True)
class BoxedImage:
    """An image with its boxes.

    Attributes:
        file: Path of the image relative to the root of its set, with slashes.
        width: Width in pixels.
        height: Height in pixels.
        boxes: Boxes in the image.
    """

    file: str
    width: int
    height: int
    boxes: list[Box]


@dataclass
class BoxSet:
    """Images with boxes, and what is wrong with the files that they were read from.

    Attributes:
        path: Path as the user gave it.
        root: Folder that the files of the images are relative to.
        classes: Names of the classes.
        images: Images.
        faults: One line for each image, box or file that was left out, and why; at most
            ``MAX_FAULTS`` lines.
    """

    path: Path
    root: Path
    classes: list[str] = field(default_factory=list)
    images: list[BoxedImage] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def fault(self, text: str) -> None:
        """Adds a line, of 500 characters at most, unless ``faults`` has ``MAX_FAULTS`` lines."""
        if len(self.faults) < MAX_FAULTS:
            self.faults.append(" ".join(text.split())[:500])

    def label(self, name: str) -> int:
        """Returns the index of a class, which is added if it is new."""
        if name not in self.classes:
            self.classes.append(name)
        return self.classes.index(name)

    def add(self, where: str, file: str, size: tuple[int, int] | None, boxes: list[Box]) -> None:
        """Adds an image; an image that cannot be used is left out with a fault.

        A file that is missing, not readable or outside of the root cannot be used, nor an image
        whose size is not ``size``.

        Args:
            where: File and line of the annotation, for faults.
            file: Path of the image below the root.
            size: (width, height) in the annotation; None: not stated.
            boxes: Boxes of the image. Boxes without area, wholly outside of the image or with
                edges that are no numbers of pixels are left out with a fault.
        """
        shown = self.size_of(where, file)
        if shown is None:
            return
        if size is not None and size != shown:
            stated, real = (f"{width} x {height}" for width, height in (size, shown))
            self.fault(f"{where}: the size is {stated}, but {file} has {real}")
            return
        kept = [box for box in boxes if self._is_inside(where, box, shown)]
        self.images.append(BoxedImage(file, *shown, kept))

    def size_of(self, where: str, file: str) -> tuple[int, int] | None:
        """Returns an image's (width, height) after EXIF rotation; on failure, None with a fault."""
        path = PurePosixPath(file)
        if path.is_absolute() or ".." in path.parts or "\0" in file or "\\" in file:
            self.fault(f"{where}: image {file[:80]!r} is outside of {self.root}")
            return None
        try:
            return shown_size_of(read_image_file(self.root / file), file)
        except FileNotFoundError:
            self.fault(
                f"{where}: image {file}: no such file in {self.root} (--images DIR names the "
                "folder of the images)"
            )
            return None
        except (OSError, DataError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            self.fault(f"{where}: image {file}: {reason}")
            return None

    def _is_inside(self, where: str, box: Box, size: tuple[int, int]) -> bool:
        edges = (box.left, box.top, box.right, box.bottom)
        text = ", ".join(f"{edge:g}" for edge in edges)
        if not all(math.isfinite(edge) and abs(edge) < 1e9 for edge in edges):
            self.fault(f"{where}: box ({text}) has an edge that is not a number of pixels")
        elif box.right <= box.left or box.bottom <= box.top:
            self.fault(f"{where}: box ({text}) has no area")
        elif box.right <= 0 or box.bottom <= 0 or box.left >= size[0] or box.top >= size[1]:
            self.fault(f"{where}: box ({text}) is outside of the image, {size[0]} x {size[1]}")
        else:
            return True
        return False

    def checked(self) -> BoxSet:
        """Returns this set, after a check that it has images and classes.

        Raises:
            DataError: The set has no image or no class.
        """
        if not self.images or not self.classes:
            first = f"; first fault: {self.faults[0]}" if self.faults else ""
            what = "images" if not self.images else "classes"
            raise DataError(f"{self.path}: no {what} with annotations{first}")
        return self

    def with_sorted_classes(self) -> BoxSet:
        """Returns the set with its classes numbered in alphabetical order of their names."""
        names = sorted(self.classes)
        order = {old: names.index(name) for old, name in enumerate(self.classes)}
        images = [
            replace(image, boxes=[replace(b, label=order[b.label]) for b in image.boxes])
            for image in self.images
        ]
        return BoxSet(self.path, self.root, names, images, self.faults)

    def counts(self) -> list[int]:
        """Returns the number of boxes of each class."""
        counts = [0] * len(self.classes)
        for image in self.images:
            for box in image.boxes:
                counts[box.label] += 1
        return counts

    def summary(self) -> str:
        """Returns the path, the number of images, and the number of boxes of each class."""
        counts = self.counts()
        images, boxes = plural(len(self.images), "image"), plural(sum(counts), "box", "es")
        return f"{self.path}: {images}, {boxes}, {class_counts(self.classes, counts, len(counts))}"

    def to_coco(self) -> dict[str, Any]:
        """Returns the set as COCO JSON; boxes are clipped to their images."""
        annotations: list[dict[str, Any]] = []
        for number, image in enumerate(self.images, 1):
            for box in image.boxes:
                left, top = max(0.0, box.left), max(0.0, box.top)
                width = min(float(image.width), box.right) - left
                height = min(float(image.height), box.bottom) - top
                entry = {"id": len(annotations) + 1, "image_id": number}
                entry |= {"category_id": box.label + 1, "iscrowd": int(box.crowd)}
                values = [round(value, 3) for value in (left, top, width, height)]
                annotations.append({**entry, "bbox": values, "area": round(width * height, 3)})
        return {
            "images": [
                {"id": number, "file_name": i.file, "width": i.width, "height": i.height}
                for number, i in enumerate(self.images, 1)
            ],
            "annotations": annotations,
            "categories": [{"id": i, "name": name} for i, name in enumerate(self.classes, 1)],
        }
