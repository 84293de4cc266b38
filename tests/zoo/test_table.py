"""MODEL_ZOO.md agrees with the records and the architectures."""

from __future__ import annotations

from pathlib import Path

from fbnetv3.arch import list_archs
from fbnetv3.weights.records import all_records
from fbnetv3.zoo.table import model_zoo_table

ROOT = Path(__file__).parents[2]


def test_model_zoo_md_is_up_to_date() -> None:
    text = (ROOT / "MODEL_ZOO.md").read_text("utf-8")
    assert text == model_zoo_table(), "run: python tools/zoo.py table"


def test_it_lists_everything() -> None:
    text = model_zoo_table()
    for name in list_archs("fbnet*"):
        assert f"| `{name}` |" in text
    for record in all_records():
        assert f"| `{record.full_name}` |" in text
    assert "| `fbnetv3_a` | 343M | 356.6M |" in text  # paper and released
    assert "79.57 (quoted)" in text
    assert "242 → 224" in text
