"""Images with drawn boxes, and sheets of predictions next to the ground truth."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from fbnetv3.data.captions import (
    FONT_SIZE,
    NAMED_BY_COLOUR,
    class_colour,
    drawable,
    heading,
    load_font,
    place_captions,
    stacked,
)
from fbnetv3.data.contact_sheet import save_sheet
from fbnetv3.data.decode import ImageLike, read_image
from fbnetv3.data.errors import plural
from fbnetv3.data.sizes import size_within
from fbnetv3.detection.coco import CocoDataset

_NUM_IMAGES = 8  # default number of images on a sheet
_WIDTH, _MAX_HEIGHT = 480, 480  # largest size of an image on a sheet in pixels
# Font size and line width are proportional to the long side up to this length in pixels. Captions
# in proportion to a longer side, such as that of a thin image, could take gigabytes.
_MAX_DRAWN = 9000
_GAP = 6  # pixels between images on a sheet
_THRESHOLD = 0.3  # default minimum score of the predictions on a sheet


@dataclass(frozen=True)
class LabelledBox:
    """A box to draw.

    Attributes:
        box: Left, top, right and bottom in pixels.
        class_index: Index of the class, which selects the colour.
        caption: Text at a corner of the box; left out where it would cover another caption.
    """

    box: tuple[float, float, float, float]
    class_index: int
    caption: str


def draw_boxes(
    image: ImageLike, boxes: Iterable[LabelledBox], font_size: int | None = None
) -> Image.Image:
    """Returns an RGB copy of an image with boxes and their captions drawn into it.

    Args:
        image: Image of any kind that ``fbnetv3.data.read_image`` accepts.
        boxes: Boxes in pixels of the image as it is shown. The last ones are on top, and their
            captions have the first choice of a place.
        font_size: Height of captions in pixels; None: in proportion to the image.

    Raises:
        DataError: The image cannot be read.
    """
    drawn = read_image(image).copy()
    pen = ImageDraw.Draw(drawn)
    side = min(_MAX_DRAWN, max(drawn.size))
    font, line = load_font(font_size or max(10, round(side / 45))), max(1, round(side / 300))
    items = list(boxes)
    for item in items:
        x0, y0, x1, y1 = item.box
        corners = (x0, y0, max(x0, x1), max(y0, y1))
        pen.rectangle(corners, outline=class_colour(item.class_index), width=line)
    _write_captions(pen, [item for item in reversed(items) if item.caption], font, drawn.size)
    return drawn


def _write_captions(
    pen: ImageDraw.ImageDraw, items: Sequence[LabelledBox], font: Any, size: tuple[int, int]
) -> None:
    """Writes captions with a thin white edge, which hides less of an image than a filled box."""
    edge = max(1, round(font.size / 8))
    texts = [drawable(item.caption, font) for item in items]
    frames = [pen.textbbox((0, 0), text, font=font, stroke_width=edge) for text in texts]
    sizes = [(right - left, bottom - top) for left, top, right, bottom in frames]
    places = place_captions([item.box for item in items], sizes, size)
    for item, text, frame, place in zip(items, texts, frames, places, strict=True):
        if place is not None:
            colour = tuple(part * 3 // 5 for part in class_colour(item.class_index))
            corner = (place[0] - frame[0], place[1] - frame[1])
            pen.text(corner, text, fill=colour, font=font, stroke_width=edge, stroke_fill="white")


def detection_caption(name: str, score: float, num_classes: int) -> str:
    """Returns the score in percent, after the class name if a legend would have too many classes.

    Args:
        name: Name of the predicted class.
        score: Score in [0, 1].
        num_classes: Number of classes that are shown.
    """
    number = f"{100 * score:.0f}"
    return number if num_classes <= NAMED_BY_COLOUR else f"{name} {number}"


def legend_of(classes: Sequence[str], shown: Collection[int]) -> list[tuple[int, str]]:
    """Returns the entries (class index, class name) of a legend.

    There are none if so many classes are shown that :func:`detection_caption` names them.

    Args:
        classes: Names of all classes.
        shown: Indices of the classes that are shown.
    """
    indices = sorted(shown) if len(shown) <= NAMED_BY_COLOUR else []
    return [(index, classes[index]) for index in indices]


def write_contact_sheet(
    dataset: CocoDataset,
    results: Sequence[dict[str, Any]],
    path: Path,
    num_images: int = _NUM_IMAGES,
    threshold: float = _THRESHOLD,
    which: str = "the first ones",
) -> None:
    """Writes a PNG of the first images of a data set, each with true and predicted boxes.

    Each image is shown twice: on the left with its ground truth, on the right with its predictions.

    Args:
        dataset: Data set of the images.
        results: Predictions in COCO's format of results.
        path: Path of the PNG file.
        num_images: Number of images on the sheet.
        threshold: Minimum score of the predictions to draw, in [0, 1].
        which: Words in the title that say how the images were chosen.

    Raises:
        DataError: An image cannot be read.
        WriteError: The file cannot be written.
    """
    records = dataset.records[:num_images]
    predictions = [_best_last(results, record["image_id"], threshold) for record in records]
    class_indices = {category: i for i, category in enumerate(dataset.category_ids)}
    shown = {item["category_id"] for record in records for item in record["annotations"]}
    shown |= {class_indices[result["category_id"]] for drawn in predictions for result in drawn}
    tiled = _tiled(
        [
            _pair(record, drawn, dataset, class_indices, len(shown))
            for record, drawn in zip(records, predictions, strict=True)
        ]
    )
    title = _title(dataset.name, len(records), which, threshold)
    sheet = stacked([heading(tiled.width, title, legend_of(dataset.classes, shown)), tiled])
    save_sheet(sheet, path)


def _best_last(
    results: Sequence[dict[str, Any]], image_id: int, threshold: float
) -> list[dict[str, Any]]:
    """Returns the results to draw in an image, by rising score: the best are drawn on top."""
    chosen = [r for r in results if r["image_id"] == image_id and r["score"] >= threshold]
    return sorted(chosen, key=lambda result: result["score"])


def _title(name: str, count: int, which: str, threshold: float) -> str:
    return (
        f"{name}, {plural(count, 'image')}, {which}. Left: ground truth. Right: predictions with "
        f"a score of {100 * threshold:g}% or more; numbers are scores in percent."
    )


def _pair(
    record: dict[str, Any],
    results: list[dict[str, Any]],
    dataset: CocoDataset,
    class_indices: dict[int, int],
    num_classes: int,
) -> Image.Image:
    """Returns an image twice, side by side: with its ground truth and with its predictions."""
    image = read_image(record["file_name"])
    size = size_within(*image.size, _WIDTH, _MAX_HEIGHT)
    scale = min(_WIDTH / image.width, _MAX_HEIGHT / image.height)
    image = image.resize(size, Image.Resampling.BILINEAR)
    truth = []
    for item in record["annotations"]:
        name = dataset.classes[item["category_id"]] if num_classes > NAMED_BY_COLOUR else ""
        caption = f"{name} crowd".strip() if item["iscrowd"] else name
        truth.append(LabelledBox(_corners(item["bbox"], scale), item["category_id"], caption))
    predictions = []
    for result in results:
        class_index = class_indices[result["category_id"]]
        caption = detection_caption(dataset.classes[class_index], result["score"], num_classes)
        predictions.append(LabelledBox(_corners(result["bbox"], scale), class_index, caption))
    name = heading(2 * _WIDTH + 2, Path(record["file_name"]).name)
    pair = Image.new("RGB", (2 * _WIDTH + 2, name.height + size[1]), "white")
    pair.paste(name, (0, 0))
    pair.paste(draw_boxes(image, truth, FONT_SIZE - 2), (0, name.height))
    pair.paste(draw_boxes(image, predictions, FONT_SIZE - 2), (_WIDTH + 2, name.height))
    return pair


def _corners(box: Sequence[float], scale: float) -> tuple[float, float, float, float]:
    x, y, width, height = (scale * value for value in box)
    return x, y, x + width, y + height


def _tiled(pairs: list[Image.Image], columns: int = 2) -> Image.Image:
    rows = [pairs[i : i + columns] for i in range(0, len(pairs), columns)]
    heights = [max(image.height for image in row) for row in rows]
    width = columns * (pairs[0].width + _GAP) + _GAP
    sheet = Image.new("RGB", (width, sum(h + _GAP for h in heights)), "white")
    y = 0
    for row, height in zip(rows, heights, strict=True):
        for number, image in enumerate(row):
            sheet.paste(image, (_GAP + number * (image.width + _GAP), y))
        y += height + _GAP
    return sheet
