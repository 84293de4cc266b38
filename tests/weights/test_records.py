"""The packaged records are complete, and a malformed record is refused with its error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fbnetv3.arch import get_arch
from fbnetv3.weights.errors import RecordError
from fbnetv3.weights.records import all_records, find_record, record_from_dict

GOLDEN = Path(__file__).parent.parent / "golden"
GOOD = {
    "name": "fbnetv3_a0",
    "tag": "t",
    "layout": "fbnetv3",
    "resolution": 32,
    "resize": 32,
    "licence": "Apache-2.0",
    "path": "x.safetensors",
}


def test_names_are_unique_and_have_an_architecture() -> None:
    records = all_records()
    assert len({r.full_name for r in records}) == len(records)
    for record in records:
        assert record.arch().resolution == record.resolution
        assert record.arch().num_classes == record.num_classes
        assert record.licence


def test_published_records_agree_with_the_published_table() -> None:
    table = {
        m["name"].lower(): m for m in json.loads((GOLDEN / "published_table.json").read_text())
    }
    records = {r.name: r for r in all_records() if r.origin == "fbnet"}
    assert len(records) == 16
    for name, record in records.items():
        quoted = table[name]
        figures = (record.resolution, record.macs_m, record.conv_weights_m)
        assert figures == (quoted["resolution"], quoted["macs_m"], quoted["conv_weights_m"])
        assert record.metrics["top1"].source == "quoted"


def test_a_of_the_published_zoo() -> None:
    record = find_record("fbnetv3_a")
    assert (record.tag, record.resize, record.resolution) == ("fb_in1k", 242, 224)
    assert record.metrics["top1"].value == 79.574
    assert record.sha256 is None
    assert "NC" in record.licence
    names = record.class_names()
    assert names is not None
    assert (len(names), names[0]) == (1000, "tench")


@pytest.mark.parametrize("letter", ["b", "d", "g"])
def test_timm_records_follow_timm(letter: str) -> None:
    timm = pytest.importorskip("timm")
    record = find_record(f"fbnetv3_{letter}.ra2_in1k")
    config = timm.get_pretrained_cfg(f"fbnetv3_{letter}.ra2_in1k")
    assert record.resolution == config.test_input_size[1]
    assert record.resize == int(record.resolution / config.crop_pct)
    assert record.interpolation == config.interpolation
    assert (record.mean, record.std) == (config.mean, config.std)
    assert record.url is not None
    assert config.hf_hub_id.strip("/") in record.url
    assert all(ly.padding == (ly.k or 0) // 2 for ly in record.arch().layers() if ly.k)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"layuot": "x"}, "unknown key 'layuot'; did you mean layout"),
        ({"layout": "x"}, "layout is 'x'; allowed: fbnet, timm"),
        ({"url": "http://x/y.pth"}, "either url or path"),
        ({"sha256": "12"}, "64 hexadecimal digits"),
        ({"resize": 16}, "they are 32 and 16"),
        ({"metrics": {"top1": {"value": 1.0, "source": "heard"}}}, "measured or quoted"),
        (
            {"several_labels": True, "metrics": {"top1": {"value": 1.0, "source": "measured"}}},
            r"top1 is not a score of images with several labels; leave it out \(--top1\)",
        ),
        ({"several_labels": "yes"}, "several_labels is 'yes'; allowed: False, True"),
        ({"interpolation": "x"}, "interpolation is 'x'; allowed"),
        ({"tag": None, "licence": None}, None),
    ],
)
def test_bad_records(change: dict[str, Any], words: str | None) -> None:
    entry = {**GOOD, **change}
    if words is None:  # a key that is missing
        entry.pop("licence")
        words = "licence"
    with pytest.raises(RecordError, match=words):
        record_from_dict(entry, "own.yaml")


def test_a_low_resolution_record() -> None:
    arch = record_from_dict(
        GOOD | {"variant": "low_resolution", "num_classes": 10, "classes": list("0123456789")}
    ).arch()
    assert (arch.resolution, arch.num_classes) == (32, 10)
    assert [block.s for block in arch.blocks if block.s > 1] == [2, 2, 2, 2]


def test_a_scaled_record() -> None:
    record = record_from_dict(GOOD | {"variant": "low_resolution", "width": 0.5, "depth": 2})
    blocks = record.arch().blocks
    table = get_arch("fbnetv3_a0").blocks
    assert (table[4].c, blocks[4].c) == (40, 24)  # 20, rounded to a multiple of 8
    assert blocks[4].n == 2 * table[4].n
    assert not record.fits_architecture
    assert record_from_dict(GOOD).fits_architecture


def test_unknown_names() -> None:
    with pytest.raises(RecordError, match=r"there are: fbnetv3_g\.fb_in1k, fbnetv3_g\.ra2_in1k"):
        find_record("fbnetv3_g.none")
    with pytest.raises(RecordError, match="did you mean fbnetv3_g"):
        find_record("fbnetv3-g")


@pytest.mark.parametrize("name", ["run", "run/model.safetensors"])
def test_a_path_in_place_of_a_name_is_told_where_it_belongs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.safetensors").write_text("")
    with pytest.raises(RecordError, match="is a file or folder: give it as --weights"):
        find_record(name)
