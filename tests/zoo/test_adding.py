"""Exported weights are added to the package, with a record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from fbnetv3.arch import get_arch
from fbnetv3.arch.scaling import low_resolution, scale
from fbnetv3.modeling import build_model
from fbnetv3.weights import download, records
from fbnetv3.weights.errors import RecordError
from fbnetv3.weights.files import read_tensors
from fbnetv3.weights.records import record_from_dict
from fbnetv3.zoo import adding
from fbnetv3.zoo.classifier import from_file, from_zoo

FORM: dict[str, Any] = {"variant": "low_resolution", "width": 0.25}


def _exported(tmp_path: Path, **more: Any) -> Path:
    arch = scale(low_resolution(get_arch("fbnetv3_a0"), 32), 0.25)
    path = tmp_path / "model_ema.safetensors"
    values = {"resolution": 32, "resize": 32, "interpolation": "bilinear", "classes": ["a", "b"]}
    values |= {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], **more}
    metadata = {key: json.dumps(value) for key, value in values.items()}
    tensors = build_model(arch, num_classes=2).state_dict()
    save_file(
        {k: v.contiguous() for k, v in tensors.items()}, path, metadata | {"arch": arch.to_yaml()}
    )
    return path


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    return _exported(tmp_path)


@pytest.mark.parametrize("several", [False, True])
def test_added_weights_score_as_their_file_does(
    several: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = _exported(tmp_path, **({"several_labels": True} if several else {}))
    monkeypatch.setattr(adding, "package_dir", lambda: tmp_path / "weights")
    monkeypatch.setattr(download, "package_dir", lambda: tmp_path / "weights")
    (entry,) = yaml.safe_load(adding.add_weights(exported, name="fbnetv3_a0", tag="ab", **FORM))
    record = record_from_dict({"layout": "fbnetv3", "licence": "x"} | entry)
    monkeypatch.setattr(records, "all_records", lambda: (record,))
    image = Image.linear_gradient("L").resize((40, 36)).convert("RGB")
    expected, found = from_file(exported), from_zoo("fbnetv3_a0.ab")
    assert ("several_labels" in entry, found.several_labels) == (several, several)
    assert torch.equal(found.scores([image]), expected.scores([image]))
    pytest.importorskip("huggingface_hub")
    from fbnetv3.zoo.hub import HubClassifier

    model = HubClassifier.from_weights("fbnetv3_a0.ab")
    model.save_pretrained(tmp_path / "hub")
    for classifier in (model.classifier(), from_file(tmp_path / "hub")):
        assert torch.equal(classifier.scores([image]), expected.scores([image]))


def test_an_exported_file_is_packaged(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adding, "package_dir", lambda: tmp_path / "weights")
    monkeypatch.setattr(download, "package_dir", lambda: tmp_path / "weights")
    metrics = {"top1": {"value": 50.0, "source": "measured"}}
    text = adding.add_weights(exported, name="fbnetv3_a0", tag="ab", metrics=metrics, **FORM)
    (entry,) = yaml.safe_load(text)
    record = record_from_dict({"layout": "fbnetv3", "licence": "x"} | entry)
    assert (record.resolution, record.classes, record.mean) == (32, ("a", "b"), (0.5, 0.5, 0.5))
    path = download.fetch(record)
    assert path == tmp_path / "weights" / "fbnetv3_a0.ab.safetensors"
    assert path.read_bytes() == exported.read_bytes()
    path.write_bytes(exported.read_bytes()[:-1])
    with pytest.raises(download.DownloadError, match="bytes, the record says"):
        download.fetch(record)


def test_matrices_in_16_bits(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adding, "package_dir", lambda: tmp_path / "weights")
    monkeypatch.setattr(download, "package_dir", lambda: tmp_path / "weights")
    text = adding.add_weights(exported, half=True, name="fbnetv3_a0", tag="ab", **FORM)
    (entry,) = yaml.safe_load(text)
    path = download.fetch(record_from_dict({"layout": "fbnetv3", "licence": "x"} | entry))
    assert path.stat().st_size < 0.6 * exported.stat().st_size
    exported_tensors, exported_metadata = read_tensors(exported)
    tensors, metadata = read_tensors(path)
    assert metadata == exported_metadata
    for name, tensor in exported_tensors.items():
        if tensor.ndim > 1:
            torch.testing.assert_close(tensors[name].float(), tensor, rtol=2**-10, atol=2**-24)
            assert tensors[name].dtype == torch.float16
        else:
            assert torch.equal(tensors[name], tensor)


def test_another_form_is_refused(exported: Path) -> None:
    with pytest.raises(RecordError, match="not of fbnetv3_a0 with variant None"):
        adding.make_entry(exported, name="fbnetv3_a0", tag="ab")


def test_bare_weights_are_refused(tmp_path: Path, weights: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(weights)
    with pytest.raises(RecordError, match="contains no names of classes"):
        adding.make_entry(path, name="fbnetv3_a0", tag="ab")


def test_files_of_other_kinds_are_refused(tmp_path: Path, exported: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(exported.read_bytes())
    with pytest.raises(RecordError, match=r"is not named \.safetensors; add the"):
        adding.make_entry(path, name="fbnetv3_a0", tag="ab")
