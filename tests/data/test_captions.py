"""Texts in pictures: characters of the font, headings, and places of captions."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest
from PIL import Image, ImageFont

from fbnetv3.data.captions import (
    FONT_SIZE,
    NAMED_BY_COLOUR,
    class_colour,
    drawable,
    fitted,
    heading,
    load_font,
    overlaps,
    place_captions,
)
from fbnetv3.data.contact_sheet import TILE, contact_sheet


@pytest.mark.parametrize(
    ("text", "of_the_system", "of_pillow"),
    [
        ("golf ball", "golf ball", "golf ball"),
        ("Église", "Église", "Eglise"),
        ("E\u0301glise", "Église", "Eglise"),
        ("Straße", "Straße", "Stra?e"),
        ("x²", "x²", "x2"),
        ("a\tb\nc", "a b c", "a b c"),
        ("\U0001f41f", "?", "?"),
        ("", "", ""),
    ],
)
def test_characters_that_a_font_lacks_are_replaced(
    text: str, of_the_system: str, of_pillow: str
) -> None:
    assert drawable(text, load_font()) == of_the_system
    assert drawable(text, ImageFont.load_default(FONT_SIZE)) == of_pillow


@pytest.mark.parametrize("text", ["", "cat", "a name that is " + "very " * 500 + "long", "é" * 90])
@pytest.mark.parametrize("width", [80, 250])
def test_texts_are_shortened_to_a_width(text: str, width: int) -> None:
    shown = fitted(text, load_font(), width)
    assert load_font().getlength(shown) <= width
    assert shown[-3:] == drawable(text, load_font())[-3:]


def _boxes(count: int, size: tuple[int, int], seed: int) -> list[tuple[float, float, float, float]]:
    draw = random.Random(seed)
    boxes = []
    for _ in range(count):
        left, top = draw.uniform(0, size[0]), draw.uniform(0, size[1])
        boxes.append((left, top, left + draw.uniform(0, 90), top + draw.uniform(0, 90)))
    return boxes


@pytest.mark.parametrize("count", [0, 1, 20, 150])
@pytest.mark.parametrize("size", [(480, 360), (30, 600), (5, 5)])
def test_captions_neither_overlap_nor_leave_the_image(count: int, size: tuple[int, int]) -> None:
    boxes = _boxes(count, size, seed=count)
    places = place_captions(boxes, [(24.0, 16.0)] * count, size)
    assert len(places) == count
    shown = [place for place in places if place is not None]
    assert not any(overlaps(a, b) for a, b in itertools.combinations(shown, 2))
    for left, top, right, bottom in shown:
        assert left >= 0
        assert top >= 0
        assert right <= size[0]
        assert bottom <= size[1]
    if count == 20 and size == (480, 360):
        assert len(shown) > 15


def test_a_caption_lies_above_its_box_and_covers_no_edge_of_another() -> None:
    alone, other = (50.0, 50.0, 90.0, 90.0), (45.0, 30.0, 60.0, 49.0)
    assert place_captions([alone], [(20, 10)], (200, 200)) == [(50.0, 40.0, 70.0, 50.0)]
    assert place_captions([alone, other], [(20, 10)] * 2, (200, 200))[0] == (
        50.0,
        90.0,
        70.0,
        100.0,
    )


@pytest.mark.parametrize("width", [TILE, 6 * TILE])
@pytest.mark.parametrize("number", [0, 3, 80])
def test_a_heading_has_title_and_legend(width: int, number: int, written: list[str]) -> None:
    classes = [(index, f"class {index}") for index in range(number)]
    strip = heading(width, "shapes: 24 of 100 images, one of each class in turn", classes)
    assert strip.width == width
    assert "shapes:" in written
    assert [f"class {i}" for i in range(min(number, 24))] == [t for t in written if "class " in t]
    assert ("and 56 more" in written) == (number == 80)
    colours = {pixel for _, pixel in strip.getcolors(1 << 20) or []}
    assert {class_colour(i) for i in range(min(number, 24))} <= colours


def test_colours_of_classes_differ() -> None:
    colours = [class_colour(index) for index in range(NAMED_BY_COLOUR)]
    assert all(
        sum(abs(a - b) for a, b in zip(one, other, strict=True)) > 120
        for one, other in itertools.combinations(colours, 2)
    )
    assert len({class_colour(index) for index in range(100)}) == 100


@pytest.mark.parametrize("sizes", [[], [(40, 30)], [(400, 300)] * 7, [(1, 3000), (3000, 1)]])
def test_a_sheet_has_its_texts_and_no_empty_space(
    sizes: list[tuple[int, int]], written: list[str]
) -> None:
    tiles = [(Image.new("RGB", size), f"class {i}\nloss 1", [(0, 0, 1, 1, 0)])
             for i, size in enumerate(sizes)]  # fmt: skip
    sheet = contact_sheet(tiles, "shapes: worst images", ["Église"])
    assert {f"class {i}" for i in range(len(sizes))} <= set(written)
    assert "shapes:" in written
    assert ("Église" in written) == bool(sizes)
    assert sheet.width == TILE * max(1, min(6, len(sizes)))
    rows = -(-len(sizes) // 6)
    highest = max((min(TILE, round(TILE * h / max(w, h))) for w, h in sizes), default=0)
    assert sheet.height <= 4 * 26 + rows * (highest + 60)


def test_a_sheet_is_large_enough_to_be_read_at_half_its_size() -> None:
    capital = load_font().getbbox("X")
    assert (capital[3] - capital[1]) / 2 >= 6  # pixels


def test_the_font_needs_no_matplotlib(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("fbnetv3.data.captions._FONT", str(tmp_path / "none.ttf"))
    load_font.cache_clear()
    try:
        assert drawable("Église", load_font()) == "Eglise"
    finally:
        load_font.cache_clear()
