"""The packaged detectors are complete and as accurate as their records state."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from fbnetv3.cli.zoo import main
from fbnetv3.weights import detector_records as detectors
from fbnetv3.weights.errors import DownloadError, RecordError
from fbnetv3.zoo import verify

RECORDS = detectors.detector_records()


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name)
def test_files_match_their_records(record: detectors.DetectorRecord) -> None:
    path = detectors.checked_file(record)
    assert path.stat().st_size < 10_000_000
    assert set(record.metrics) == {"AP", "AP50"}


def test_a_damaged_file_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(detectors, "package_dir", lambda: tmp_path)
    with pytest.raises(DownloadError, match="missing"):
        detectors.checked_file(RECORDS[0])
    detectors.packaged_file(RECORDS[0]).write_bytes(b"half")
    with pytest.raises(DownloadError, match="damaged"):
        detectors.checked_file(RECORDS[0])


def test_an_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(RecordError, match=r"did you mean retinanet_fbnetv3_a0\.bccd"):
        detectors.find_detector("retinanet_fbnetv3_a0.bcd")


def test_they_are_listed_with_the_other_weights(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--pretrained"]) == 0
    out = capsys.readouterr().out
    for record in RECORDS:
        assert record.name in out
    assert "AP 55.00 (measured)" in out


def test_without_the_data_the_hash_is_all_that_is_verified(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("detectron2")
    monkeypatch.delenv("FBNETV3_DATA", raising=False)
    rows = verify("retinanet_fbnetv3_a0.bccd")
    assert [(row.check, row.status) for row in rows] == [("hash", "ok"), ("accuracy", "skipped")]
    assert "FBNETV3_DATA" in rows[1].detail


def test_without_detectron2_the_hash_is_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    rows = verify("retinanet_fbnetv3_a0.bccd")
    assert [(row.check, row.status) for row in rows] == [("hash", "ok"), ("accuracy", "skipped")]
    assert "detectron2" in rows[1].detail


@pytest.mark.slow
def test_aps_match_the_records(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("detectron2")
    monkeypatch.setenv("FBNETV3_DATA", str(data_root))
    rows = verify("retinanet_*")
    assert [row for row in rows if row.status != "ok"] == []
