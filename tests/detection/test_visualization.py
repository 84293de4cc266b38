"""Sheets of predictions beside the ground truth: titles, legends and captions."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from fbnetv3.data.captions import class_colour
from fbnetv3.detection.coco import CocoDataset
from fbnetv3.detection.visualization import LabelledBox, draw_boxes, write_contact_sheet


def _dataset(folder: Path, num_classes: int, crowd: int = 0) -> CocoDataset:
    Image.new("RGB", (200, 150), "white").save(folder / "0.png")
    box = {"bbox": [20, 40, 30, 30], "area": 900, "iscrowd": crowd}
    records = [
        {
            "file_name": str(folder / "0.png"),
            "image_id": 1,
            "height": 150,
            "width": 200,
            "annotations": [{**box, "category_id": label} for label in range(num_classes)],
        }
    ]
    names = [f"kind{label}" for label in range(num_classes)]
    ids = [label + 1 for label in range(num_classes)]
    return CocoDataset("cells", folder / "cells.json", names, ids, records, ())


@pytest.mark.parametrize(
    ("num_classes", "expected", "absent"),
    [(2, {"kind0", "kind1", "87"}, {"kind0 87"}), (9, {"kind8", "kind0 87"}, {"87"})],
)
def test_a_sheet_states_source_threshold_and_classes(
    num_classes: int, expected: set[str], absent: set[str], tmp_path: Path, written: list[str]
) -> None:
    results = [
        {"image_id": 1, "category_id": 1, "score": score, "bbox": [100, 40, 30, 30]}
        for score in (0.874, 0.24)
    ]
    write_contact_sheet(
        _dataset(tmp_path, num_classes), results, tmp_path / "sheet.png", 1, 0.25, "the worst ones"
    )
    title = " ".join(written)
    assert "cells, 1 image, the worst ones. Left: ground truth. Right: predictions" in title
    assert "with a score of 25% or more; numbers are scores in percent." in title
    assert expected <= set(written)
    assert not {*absent, "24", "kind0 24"} & set(written)
    assert "0.png" in written
    with Image.open(tmp_path / "sheet.png") as sheet:
        colours = {pixel for _, pixel in sheet.convert("RGB").getcolors(1 << 22) or []}
    assert {class_colour(label) for label in ((0, 1) if num_classes == 2 else (0,))} <= colours


def test_crowds_are_marked(tmp_path: Path, written: list[str]) -> None:
    write_contact_sheet(_dataset(tmp_path, 1, crowd=1), [], tmp_path / "sheet.png")
    assert "crowd" in written


def test_captions_of_boxes_at_the_same_place_do_not_cover_each_other(written: list[str]) -> None:
    boxes = [LabelledBox((100, 100, 160, 160), 0, str(number)) for number in range(40)]
    drawn = draw_boxes(Image.new("RGB", (300, 300)), boxes)
    assert drawn.size == (300, 300)
    assert written[0] == "39"  # the box on top chooses first
    assert len(written) == 8
