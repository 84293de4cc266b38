"""A picture of samples of a data set: a grid of images with their classes, and boxes if any."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from fbnetv3.data.captions import (
    FONT_SIZE,
    INK,
    class_colour,
    fitted,
    heading,
    load_font,
    stacked,
)
from fbnetv3.io import atomic_write

TILE = 256
"""Side in pixels of the square into which each image is fitted, with its margin."""
_TEXT_HEIGHT = FONT_SIZE + 3  # pixels of a line below each image
_COLUMNS = 6
_MARGIN = 3  # pixels around an image

# (left, top, right, bottom) in pixels of the image, and the index of the class
LabelledBox = tuple[float, float, float, float, int]
# Image, lines of text below it, and boxes to draw
Tile = tuple[Image.Image, str, Sequence[LabelledBox]]


def contact_sheet(
    tiles: Sequence[Tile], title: str = "", classes: Sequence[str] = ()
) -> Image.Image:
    """Returns a grid of images, below a title and a legend of the boxes' colours.

    Args:
        tiles: RGB images, each with lines of text and boxes to draw.
        title: Description of the images and of their source.
        classes: Names of the classes of boxes; empty if there are no boxes.
    """
    columns = max(1, min(_COLUMNS, len(tiles)))
    rows = [tiles[i : i + columns] for i in range(0, len(tiles), columns)]
    drawn = sorted({box[4] for _, _, boxes in tiles for box in boxes})
    legend = [(index, classes[index]) for index in drawn if index < len(classes)]
    top = heading(columns * TILE, title, legend)
    return stacked([top, *(_row(row, columns * TILE) for row in rows)])


def _row(tiles: Sequence[Tile], width: int) -> Image.Image:
    """Returns images side by side, each above its text."""
    pictures = [_captioned(_tile(image, boxes), text) for image, text, boxes in tiles]
    row = Image.new("RGB", (width, max(picture.height for picture in pictures)), "white")
    for number, picture in enumerate(pictures):
        row.paste(picture, (number * TILE, 0))
    return row


def _captioned(image: Image.Image, text: str) -> Image.Image:
    lines, font = text.split("\n"), load_font()
    below = image.height + 2 * _MARGIN
    tile = Image.new("RGB", (TILE, below + len(lines) * _TEXT_HEIGHT + 2 * _MARGIN), "white")
    tile.paste(image, (_MARGIN, _MARGIN))
    pen = ImageDraw.Draw(tile)
    for number, line in enumerate(lines):
        shown = fitted(line, font, TILE - 3 * _MARGIN)
        pen.text((_MARGIN, below + number * _TEXT_HEIGHT), shown, fill=INK, font=font)
    return tile


def _tile(image: Image.Image, boxes: Sequence[LabelledBox]) -> Image.Image:
    scale = (TILE - 2 * _MARGIN) / max(image.size)
    size = [max(1, round(side * scale)) for side in image.size]
    tile = image.resize((size[0], size[1]))
    pen = ImageDraw.Draw(tile)
    for *edges, label in boxes:
        x0, y0, x1, y1 = (edge * scale for edge in edges)
        pen.rectangle((x0, y0, x1, y1), outline=class_colour(label), width=2)
    return tile


def save_sheet(sheet: Image.Image, path: Path) -> None:
    """Writes a picture as PNG, lightly compressed: a training writes some at each evaluation.

    Raises:
        WriteError: The file cannot be written.
    """
    with atomic_write(path) as temporary:
        sheet.save(temporary, "PNG", compress_level=1)


def samples_by_class(targets: Sequence[Collection[int]], count: int) -> list[int]:
    """Returns the indices of ``count`` images, taking one image of each class in turn.

    Args:
        targets: Classes of each image; images without a class are not taken.
        count: Number of images; all that have a class are returned if these are fewer.
    """
    queues: dict[int, list[int]] = {}
    for index, labels in enumerate(targets):
        for label in labels:
            queues.setdefault(label, []).append(index)
    chosen: dict[int, None] = {}
    turn = 0
    while len(chosen) < count and any(turn < len(queue) for queue in queues.values()):
        for label in sorted(queues):
            if turn < len(queues[label]) and len(chosen) < count:
                chosen[queues[label][turn]] = None
        turn += 1
    return list(chosen)
