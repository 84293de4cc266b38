"""Images with drawn boxes, and sheets of predictions next to the ground truth."""

from __future__ import annotations

import colorsys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from fbnetv3.data.decode import ImageLike, read_image
from fbnetv3.data.sizes import size_within
from fbnetv3.detection.coco import CocoDataset
from fbnetv3.io import atomic_write

# Difference in hue between consecutive classes: the golden ratio keeps all hues apart.
_HUE_STEP = 0.618034
_NUM_IMAGES = 8
_WIDTH, _MAX_HEIGHT = 320, 640  # pixels of an image on a sheet
# Font size and line width are proportional to the long side up to this length in pixels. In
# proportion to a longer side, such as that of a thin image, they could take gigabytes.
_MAX_DRAWN = 9000
_GAP = 6  # pixels between images on a sheet
_THRESHOLD = 0.3


@dataclass(frozen=True)
class LabelledBox:
    """A box to draw.

    Attributes:
        box: Left, top, right and bottom in pixels.
        class_index: Index of the class, which selects the colour.
        caption: Text above the box.
    """

    box: tuple[float, float, float, float]
    class_index: int
    caption: str


def _colour(class_index: int) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(class_index * _HUE_STEP % 1.0, 0.85, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_boxes(image: ImageLike, boxes: Iterable[LabelledBox]) -> Image.Image:
    """Returns an RGB copy of an image with boxes and their captions drawn into it.

    Args:
        image: Image of any kind that ``fbnetv3.data.read_image`` accepts.
        boxes: Boxes in pixels of the image as it is shown.

    Raises:
        DataError: The image cannot be read.
    """
    drawn = read_image(image).copy()
    pen = ImageDraw.Draw(drawn)
    side = min(_MAX_DRAWN, max(drawn.size))
    font, line = ImageFont.load_default(max(10, round(side / 45))), max(1, round(side / 300))
    for item in boxes:
        colour = _colour(item.class_index)
        x0, y0, x1, y1 = item.box
        pen.rectangle((x0, y0, max(x0, x1), max(y0, y1)), outline=colour, width=line)
        _write(pen, item.caption, (x0, y0), font, colour, drawn.size)
    return drawn


def _write(
    pen: ImageDraw.ImageDraw,
    caption: str,
    corner: tuple[float, float],
    font: Any,
    colour: tuple[int, int, int],
    size: tuple[int, int],
) -> None:
    """Writes a caption above a box, or inside of the box if there is no room above."""
    left, top, right, bottom = pen.textbbox((0, 0), caption, font=font)
    width, height = right - left, bottom - top
    x = min(max(0.0, corner[0]), max(0.0, size[0] - width - 2))
    y = corner[1] - height - 2
    y = y if y >= 0 else corner[1]
    pen.rectangle((x, y, x + width + 2, y + height + 2), fill=colour)
    pen.text((x + 1 - left, y + 1 - top), caption, fill=(0, 0, 0), font=font)


def write_contact_sheet(
    dataset: CocoDataset,
    results: Sequence[dict[str, Any]],
    path: Path,
    num_images: int = _NUM_IMAGES,
    threshold: float = _THRESHOLD,
) -> None:
    """Writes a PNG of the first images of a data set, each with true and predicted boxes.

    Each image is shown twice: on the left with its ground truth, on the right with its predictions.

    Args:
        dataset: Data set of the images.
        results: Predictions in COCO's format of results.
        path: Path of the PNG file.
        num_images: Number of images on the sheet.
        threshold: Minimum score of the predictions to draw, in [0, 1].

    Raises:
        DataError: An image cannot be read.
        WriteError: The file cannot be written.
    """
    by_image: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for result in results:
        if result["score"] >= threshold:
            by_image[result["image_id"]].append(result)
    class_indices = {category: i for i, category in enumerate(dataset.category_ids)}
    records = dataset.records[:num_images]
    pairs = [
        _pair(record, by_image[record["image_id"]], dataset, class_indices) for record in records
    ]
    sheet = _tiled(pairs)
    title = f"{dataset.name}: ground truth | predictions with score >= {threshold:g}"
    ImageDraw.Draw(sheet).text((_GAP, 2), title, fill=(0, 0, 0), font=ImageFont.load_default(13))
    with atomic_write(path) as temporary:
        sheet.save(temporary, "PNG")


def _pair(
    record: dict[str, Any],
    results: list[dict[str, Any]],
    dataset: CocoDataset,
    class_indices: dict[int, int],
) -> Image.Image:
    """Returns an image twice, side by side: with its ground truth and with its predictions."""
    image = read_image(record["file_name"])
    size = size_within(*image.size, _WIDTH, _MAX_HEIGHT)
    scale = min(_WIDTH / image.width, _MAX_HEIGHT / image.height)
    image = image.resize(size, Image.Resampling.BILINEAR)
    truth = [
        LabelledBox(
            _corners(item["bbox"], scale),
            item["category_id"],
            dataset.classes[item["category_id"]] + (" crowd" if item["iscrowd"] else ""),
        )
        for item in record["annotations"]
    ]
    predictions = []
    # The boxes with the highest scores are drawn last, on top of the others.
    for result in sorted(results, key=lambda result: result["score"]):
        class_index = class_indices[result["category_id"]]
        caption = f"{dataset.classes[class_index]} {100 * result['score']:.0f}"
        predictions.append(LabelledBox(_corners(result["bbox"], scale), class_index, caption))
    pair = Image.new("RGB", (2 * _WIDTH + 2, size[1]), "white")
    pair.paste(draw_boxes(image, truth), (0, 0))
    pair.paste(draw_boxes(image, predictions), (_WIDTH + 2, 0))
    return pair


def _corners(box: Sequence[float], scale: float) -> tuple[float, float, float, float]:
    x, y, width, height = (scale * value for value in box)
    return x, y, x + width, y + height


def _tiled(pairs: list[Image.Image], columns: int = 2, top: int = 20) -> Image.Image:
    rows = [pairs[i : i + columns] for i in range(0, len(pairs), columns)]
    heights = [max(image.height for image in row) for row in rows]
    width = columns * (pairs[0].width + _GAP) + _GAP
    sheet = Image.new("RGB", (width, top + sum(h + _GAP for h in heights)), "white")
    y = top
    for row, height in zip(rows, heights, strict=True):
        for number, image in enumerate(row):
            sheet.paste(image, (_GAP + number * (image.width + _GAP), y))
        y += height + _GAP
    return sheet
