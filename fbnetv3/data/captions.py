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
"""Height of text on sheets of pictures, in pixels; readable when a sheet is shown at half size."""
# The colours of the first classes differ in hue and lightness, and are visible on white and on
# photographs. The hues of later classes are steps of a golden ratio around the colour circle.
_COLOURS = ((0, 90, 200), (214, 39, 40), (0, 128, 60), (245, 130, 49), (145, 30, 180))
_HUE_STEP = 0.618034
NAMED_BY_COLOUR = len(_COLOURS)
"""Largest number of classes told apart by colour alone; with more, captions have names, too."""
_FONT = "DejaVuSans.ttf"
_MAX_CHARACTERS = 200  # of a text; the rest is cut off
_MAX_LEGEND = 24  # classes that a legend lists
_GAP = 6  # pixels between words, and at the edges
_SQUARE = FONT_SIZE + 4  # pixels from the left edge of a class's colour square to its name


def class_colour(index: int) -> tuple[int, int, int]:
    """Returns the colour of a class, the same in all pictures."""
    if index < len(_COLOURS):
        return _COLOURS[index]
    red, green, blue = colorsys.hsv_to_rgb(index * _HUE_STEP % 1.0, 0.85, 0.85)
    return round(255 * red), round(255 * green), round(255 * blue)


def _font_files() -> Iterator[str]:
    """Yields files of a font with accents, Greek and Cyrillic: Matplotlib's, then the system's."""
    spec = importlib.util.find_spec("matplotlib")
    if spec is not None and spec.origin:
        yield str(Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / _FONT)
    yield _FONT


@functools.cache
def load_font(size: int = FONT_SIZE) -> Font:
    """Returns a font: the first one that exists of :func:`_font_files`, else Pillow's default.

    Pillow's default font only has ASCII characters.

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
    """Returns the first 200 characters of a text, replaced where a font lacks them.

    Accents that the font lacks are dropped; other characters that it lacks become ``?``.
    """
    text = text[:_MAX_CHARACTERS]
    if text.isascii() and text.isprintable():
        return text
    # U+FFFF is never a character, so that it is drawn as the font's sign for a missing one.
    missing = bytes(font.getmask("\uffff"))

    def has(character: str) -> bool:
        return character.isprintable() and bytes(font.getmask(character)) != missing

    def shown(character: str) -> str:
        parts = [character] if has(character) else unicodedata.normalize("NFKD", character)
        kept = "".join(part for part in parts if has(part) and not unicodedata.combining(part))
        return kept or (" " if character.isspace() else "?")

    return "".join(map(shown, unicodedata.normalize("NFC", text)))


def fitted(text: str, font: Font, width: float) -> str:
    """Returns a text as :func:`drawable`, shortened in the middle to a width in pixels.

    A text is not shortened below 8 characters, even if they are wider.
    """
    text = shown = drawable(text, font)
    kept = len(text)
    while font.getlength(shown) > width and kept > 8:
        kept -= 1
        shown = f"{text[: kept - 8]}..{text[-6:]}"
    return shown


@dataclass(frozen=True)
class _Word:
    """A word of a title, or the name of a class, drawn after a square of the class's colour."""

    text: str
    class_index: int | None = None


def heading(width: int, title: str, classes: Sequence[tuple[int, str]] = ()) -> Image.Image:
    """Returns a strip with a title and a legend of classes, broken into lines.

    Args:
        width: Width in pixels.
        title: Text above the legend; empty if there is none.
        classes: Index and name of each class of the legend, which lists the first 24.
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

    The candidates are the corners of the box, outside and inside, where the caption is within the
    image and overlaps no earlier caption. The caption gets the candidate that the edges of the
    fewest boxes pass through; of equal candidates, one outside of its box, if there is one.

    Args:
        boxes: Boxes, in the order in which their captions are placed.
        sizes: Width and height of each caption in pixels.
        image: Width and height of the image, in which captions must lie.

    Returns:
        The place of each caption; None if it has no candidate.
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
