"""``verify`` detects wrong records and files, and gives the reason for skipped checks."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save

from fbnetv3 import zoo
from fbnetv3.data.errors import DataError, MissingDataError
from fbnetv3.errors import FBNetError
from fbnetv3.modeling import build_model
from fbnetv3.weights import records
from fbnetv3.weights.records import Metric, WeightRecord, all_records, find_record
from fbnetv3.zoo import verification, verify

Make = Callable[..., WeightRecord]


def _use(monkeypatch: pytest.MonkeyPatch, *given: WeightRecord) -> None:
    for module in (records, zoo.api, verification):
        monkeypatch.setattr(module, "all_records", lambda: given)
    for module in (zoo.api, verification):
        monkeypatch.setattr(module, "detector_records", lambda: ())


def _status(rows: list[zoo.VerifyRow]) -> dict[str, str]:
    return {row.check: row.status for row in rows}


@pytest.mark.slow
def test_every_record_is_right() -> None:
    """Accuracies too, where the data sets are. ``test_detectors.py`` has the detectors."""
    rows = verify("[!r]*")  # of classifiers
    assert [row for row in rows if row.status == "failed"] == []
    rows = [row for row in rows if row.check == "cost"]
    assert len(rows) == len(all_records())
    quoted = [r.full_name for r in all_records() if r.macs_m is not None]
    assert [row.name for row in rows if row.status == "ok"] == quoted
    assert len(quoted) == 16


def test_a_wrong_cost_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    right = find_record("fbnetv3_g")
    _use(monkeypatch, dataclasses.replace(right, macs_m=2129.656385))
    row = verify("fbnetv3_g*")[0]
    assert (row.check, row.status) == ("cost", "failed")
    assert "2129.656385M quoted, 2129.656384M counted" in row.detail


def test_nothing_is_downloaded(cache: Path) -> None:
    rows = verify("fbnetv3_a.*")
    assert _status(rows) == {"cost": "ok", "hash": "skipped", "accuracy": "skipped"}
    assert not cache.exists()


def test_a_changed_file_is_detected(
    site: Any, weights: bytes, make_record: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.body = weights
    record = make_record()
    _use(monkeypatch, record)
    path = zoo.fetch(record)
    assert _status(verify())["hash"] == "ok"
    path.write_bytes(weights[:-1] + b"\x7f")
    assert _status(verify())["hash"] == "failed"


def test_no_match() -> None:
    with pytest.raises(zoo.RecordError, match="no weights match 'nothing'"):
        verify("nothing")


@pytest.fixture
def two_classes(tmp_path: Path) -> Path:
    """A data set of noise with one folder per class."""
    noise = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(3):
            pixels = noise.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{i}.png")
    return tmp_path / "data"


def _first_class_weights() -> bytes:
    """Returns the weights of a network with two classes that always predicts the first."""
    model = build_model("fbnetv3_a0", num_classes=2)
    torch.nn.init.zeros_(model.head.fc.weight)
    torch.nn.init.constant_(model.head.fc.bias[:1], 1.0)
    return save({key: value.contiguous() for key, value in model.state_dict().items()})


@pytest.mark.parametrize(("claimed", "status"), [(50.0, "ok"), (90.0, "failed")])
def test_accuracy_is_measured_where_the_data_set_is_installed(
    two_classes: Path,
    site: Any,
    make_record: Make,
    monkeypatch: pytest.MonkeyPatch,
    claimed: float,
    status: str,
) -> None:
    site.body = _first_class_weights()
    record = make_record(
        num_classes=2,
        resolution=32,
        resize=32,
        dataset=str(two_classes),
        metrics={"top1": Metric(claimed, "measured")},
    )
    _use(monkeypatch, record)
    zoo.fetch(record)
    rows = verify()
    assert _status(rows)["accuracy"] == status
    assert f"top-1 50.00 on {two_classes}, measured {claimed:.2f}" in rows[-1].detail


def test_data_of_other_classes_is_refused(
    two_classes: Path, site: Any, weights: bytes, make_record: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.body = weights
    record = make_record(metrics={"top1": Metric(50.0, "quoted")})
    _use(monkeypatch, record)
    zoo.fetch(record)
    row = verify(data=str(two_classes))[-1]
    assert (row.status, row.check) == ("failed", "accuracy")
    assert "has 2 classes" in row.detail


@pytest.mark.parametrize(
    ("classes", "cats"),
    [(("cat", "dog"), 100.0), (("dog", "cat"), 0.0), (None, 100.0)],
    ids=["the same order", "another order", "no names"],
)
def test_classes_are_matched_by_name(
    two_classes: Path,
    site: Any,
    make_record: Make,
    monkeypatch: pytest.MonkeyPatch,
    classes: tuple[str, ...] | None,
    cats: float,
) -> None:
    site.body = _first_class_weights()
    record = make_record(num_classes=2, resolution=32, resize=32, classes=classes)
    shutil.rmtree(two_classes / "dog")
    (two_classes / "dog").mkdir()
    shutil.copy(two_classes / "cat" / "0.png", two_classes / "dog" / "0.png")
    _use(monkeypatch, record)
    top1 = verification.measure_top1(record, str(two_classes))
    assert top1 == pytest.approx(75.0 if cats else 25.0)


def test_other_class_names_are_refused(two_classes: Path, make_record: Make) -> None:
    record = make_record(num_classes=2, classes=("cat", "bird"))
    with pytest.raises(FBNetError, match=r"\(2: cat, bird\), but the data has \(2: cat, dog\)"):
        verification.measure_top1(record, str(two_classes))


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MissingDataError("data set x is missing"), "skipped"),
        (DataError("no images in class folders"), "failed"),
    ],
)
def test_only_a_missing_data_set_is_skipped(
    site: Any,
    weights: bytes,
    make_record: Make,
    monkeypatch: pytest.MonkeyPatch,
    error: DataError,
    status: str,
) -> None:
    def opened(name: str) -> None:
        raise error

    site.body = weights
    record = make_record(dataset="x", metrics={"top1": Metric(50.0, "quoted")})
    _use(monkeypatch, record)
    zoo.fetch(record)
    monkeypatch.setattr(verification, "build_dataset", opened)
    assert _status(verify())["accuracy"] == status
