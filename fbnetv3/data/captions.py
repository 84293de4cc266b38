"""Text in pictures: a font with accents, colours of classes, headings with a legend, captions."""

from __future__ import annotations

import colorsys
import functools
import importlib.util
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Rect = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels."""
INK = (30, 30, 30)
FONT_SIZE = 17
"""Height of the text of sheets in pixels: it can be read at half the size of the sheet."""
# The first classes have colours that differ in hue and lightness, and are seen on white and on
# photographs. Those of further classes are a golden ratio apart in hue.
_COLOURS = ((0, 90, 200), (214, 39, 40), (0, 128, 60), (245, 130, 49), (145, 30, 180))
_HUE_STEP = 0.618034
NAMED_BY_COLOUR = len(_COLOURS)
"""Largest number of classes that a legend tells apart; above, captions have the name, too."""
_FONT = "DejaVuSans.ttf"
_MAX_CHARACTERS = 200
_MAX_LEGEND = 24  # classes
_GAP = 6  # pixels
_SQUARE = FONT_SIZE + 4  # pixels from the left of a colour's square to its class


def class_colour(index: int) -> tuple[int, int, int]:
    """Returns the colour of a class, the same in all pictures."""
    if index < len(_COLOURS):
        return _COLOURS[index]
    red, green, blue = colorsys.hsv_to_rgb(index * _HUE_STEP % 1.0, 0.85, 0.85)
    return round(255 * red), round(255 * green), round(255 * blue)


def _font_files() -> Iterator[str]:
    """Yields fonts with accents, Greek and Cyrillic: Matplotlib's, then that of the system."""
    spec = importlib.util.find_spec("matplotlib")
    if spec is not None and spec.origin:
        yield str(Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / _FONT)
    yield _FONT


@functools.cache
def load_font(size: int = FONT_SIZE) -> Font:
    """Returns a font; without one of :func:`_font_files` it is Pillow's own, which has ASCII only.

    Args:
        size: Height in pixels.
    """
    for path in _font_files():
        try:
            return ImageFont.truetype(path, size)
        except OSError:
            continue
    return ImageFont.load_default(size)


def drawable(text: str, font: Font) -> str:
    """Returns a text in the characters of a font, which may lack accents."""
    text = text[:_MAX_CHARACTERS]
    if text.isascii() and text.isprintable():
        return text
    missing = bytes(font.getmask("\uffff"))  # never a character: the sign for an absent one

    def has(character: str) -> bool:
        return character.isprintable() and bytes(font.getmask(character)) != missing

    def shown(character: str) -> str:
        parts = [character] if has(character) else unicodedata.normalize("NFKD", character)
        kept = "".join(part for part in parts if has(part) and not unicodedata.combining(part))
        return kept or (" " if character.isspace() else "?")

    return "".join(map(shown, unicodedata.normalize("NFC", text)))


def fitted(text: str, font: Font, width: float) -> str:
    """Returns a text in the characters of a font, shortened in the middle to a width in pixels."""
    text = shown = drawable(text, font)
    kept = len(text)
    while font.getlength(shown) > width and kept > 8:
        kept -= 1
        shown = f"{text[: kept - 8]}..{text[-6:]}"
    return shown


@dataclass(frozen=True)
class _Word:
    """A word of a heading, or the name of a class with a square of its colour."""

    text: str
    class_index: int | None = None


def heading(width: int, title: str, classes: Sequence[tuple[int, str]] = ()) -> Image.Image:
    """Returns a strip with a title and a legend of classes, broken into lines.

    Args:
        width: Width in pixels.
        title: Text above the legend; empty if there is none.
        classes: Index and name of each class of the legend.
    """
    font, room = load_font(), width - 2 * _GAP
    legend = [_Word(name, index) for index, name in classes[:_MAX_LEGEND]]
    more = len(classes) - len(legend)
    legend += [_Word(f"and {more} more")] if more else []
    lines = [*_lines([_Word(word) for word in title.split()], room), *_lines(legend, room)]
    step = round(1.5 * FONT_SIZE)
    strip = Image.new("RGB", (width, len(lines) * step), "white")
    pen = ImageDraw.Draw(strip)
    for number, line in enumerate(lines):
        for x, word in line:
            x, y = x + _GAP, number * step + 2
            if word.class_index is not None:
                square = (x, y + 3, x + FONT_SIZE - 3, y + FONT_SIZE)
                pen.rectangle(square, outline=class_colour(word.class_index), width=3)
                x += _SQUARE
            pen.text((x, y), word.text, fill=INK, font=font)
    return strip


def _lines(words: Sequence[_Word], room: float) -> list[list[tuple[float, _Word]]]:
    """Breaks words into lines; returns each line's words with their distance from the left."""
    font = load_font()
    lines: list[list[tuple[float, _Word]]] = []
    x = room + 1.0
    for word in words:
        square, gap = (0, _GAP) if word.class_index is None else (_SQUARE, 3 * _GAP)
        text = fitted(word.text, font, room - square)
        width = square + font.getlength(text)
        if x + width > room:
            lines.append([])
            x = 0.0
        lines[-1].append((x, _Word(text, word.class_index)))
        x += width + gap
    return lines


def stacked(strips: Sequence[Image.Image]) -> Image.Image:
    """Returns pictures below each other, on white."""
    sheet = Image.new(
        "RGB", (max(s.width for s in strips), max(1, sum(s.height for s in strips))), "white"
    )
    top = 0
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height
    return sheet


def place_captions(
    boxes: Sequence[Rect], sizes: Sequence[tuple[float, float]], image: tuple[int, int]
) -> list[Rect | None]:
    """Chooses a place for the caption of each box, such that captions do not overlap.

    Of the places that are free, at the corners of its box, a caption takes the one that covers the
    fewest boxes' edges, and outside of its box rather than inside.

    Args:
        boxes: Boxes; the first ones choose first.
        sizes: Width and height of each caption in pixels.
        image: Width and height of the image, in which captions must lie.

    Returns:
        The place of each caption; None where there is none.
    """
    taken: list[Rect] = []
    places: list[Rect | None] = []
    for box, size in zip(boxes, sizes, strict=True):
        free = [
            place
            for place in _corners(box, size)
            if place[0] >= 0 and place[1] >= 0 and place[2] <= image[0] and place[3] <= image[1]
            if not any(overlaps(place, other) for other in taken)
        ]
        best = min(free, key=lambda place: sum(_crosses(place, b) for b in boxes), default=None)
        if best is not None:
            taken.append(best)
        places.append(best)
    return places


def _corners(box: Rect, size: tuple[float, float]) -> list[Rect]:
    (left, top, right, bottom), (width, height) = box, size
    corners = [
        *((left, top - height), (left, bottom), (right - width, top - height)),
        *((right - width, bottom), (left + 2, top + 2), (right - width - 2, top + 2)),
        *((left + 2, bottom - height - 2), (right - width - 2, bottom - height - 2)),
    ]
    return [(x, y, x + width, y + height) for x, y in corners]


def overlaps(one: Rect, other: Rect) -> bool:
    """Returns whether two rectangles have a common area."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _crosses(place: Rect, box: Rect) -> bool:
    """Returns whether an edge of a box passes through a place."""
    left, top, right, bottom = box
    is_within = left < place[0] and place[2] < right and top < place[1] and place[3] < bottom
    return overlaps(place, box) and not is_within
