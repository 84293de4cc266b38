"""A picture of samples of a data set: a grid of images with their classes, and perhaps boxes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from fbnetv3.io import atomic_write

TILE = 192
"""Side in pixels of the square into which each image is fitted."""
_TEXT_HEIGHT = 14  # pixels of a line below each image
_COLUMNS = 6
_COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#000075")
_MAX_CHARACTERS = 30

# (left, top, right, bottom) in pixels of the image, and the index of the class
LabelledBox = tuple[float, float, float, float, int]


def contact_sheet(
    tiles: Sequence[tuple[Image.Image, str, Sequence[LabelledBox]]],
) -> Image.Image:
    """Returns a grid of images.

    Args:
        tiles: RGB images, each with lines of text and boxes to draw.
    """
    columns = max(1, min(_COLUMNS, len(tiles)))
    rows = -(-len(tiles) // columns)
    lines = max((text.count("\n") + 1 for _, text, _ in tiles), default=1)
    height = TILE + lines * _TEXT_HEIGHT
    sheet = Image.new("RGB", (columns * TILE, max(1, rows) * height), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (image, text, boxes) in enumerate(tiles):
        left, top = number % columns * TILE, number // columns * height
        scale = (TILE - 4) / max(image.size)
        size = [max(1, round(side * scale)) for side in image.size]
        sheet.paste(image.resize((size[0], size[1])), (left + 2, top + 2))
        for *edges, label in boxes:
            x0, y0, x1, y1 = (edge * scale for edge in edges)
            corners = [left + 2 + x0, top + 2 + y0, left + 2 + x1, top + 2 + y1]
            draw.rectangle(corners, outline=_COLOURS[label % len(_COLOURS)], width=2)
        for row, line in enumerate(text.split("\n")):
            # Pillow's built-in font has the characters of Latin-1
            shown = line.encode("latin-1", "replace").decode("latin-1")[:_MAX_CHARACTERS]
            draw.text((left + 2, top + TILE + row * _TEXT_HEIGHT), shown, fill="black")
    return sheet


def save_sheet(sheet: Image.Image, path: Path) -> None:
    """Writes a picture as PNG.

    Raises:
        WriteError: The file cannot be written.
    """
    with atomic_write(path) as temporary:
        sheet.save(temporary, "PNG")


def samples_by_class(targets: Sequence[Collection[int]], count: int) -> list[int]:
    """Returns the indices of ``count`` images, in turns one of each class.

    Args:
        targets: Classes of each image.
        count: Number of images; fewer are returned if there are fewer.
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
