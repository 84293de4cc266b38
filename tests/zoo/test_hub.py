"""Classifiers in repositories of Hugging Face's hub: a local folder, and a stand-in of the hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from fbnetv3.weights.errors import WeightsFileError
from fbnetv3.weights.packaged import package_dir
from fbnetv3.zoo.classifier import from_file, from_zoo
from tests.conftest import ROOT
from tests.fixtures.hub import Hub

pytest.importorskip("huggingface_hub")
from fbnetv3.zoo.hub import HubClassifier

NAME = "fbnetv3_nano_a.cifar10"
IMAGE = Image.linear_gradient("L").resize((40, 36)).convert("RGB")
# Uploads packaged weights, and loads them again in each of the ways.
ROUND_TRIP = """
import json, warnings
import fbnetv3, torch
from fbnetv3.weights.load import read_weights
from fbnetv3.zoo.hub import HubClassifier
source = HubClassifier.from_weights("fbnetv3_nano_a.cifar10")
source.push_to_hub("me/nano", token="hf_token")
loaded = HubClassifier.from_pretrained("me/nano")
images = torch.rand(2, 3, 32, 32)
expected = source(images)
model = fbnetv3.zoo.get("hf://me/nano", pretrained=True).eval()
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    other = fbnetv3.build_model("hf://me/nano", num_classes=3, pretrained=True)
print(json.dumps({
    "loaded": torch.equal(loaded(images), expected),
    "built": torch.equal(model(images), expected),
    "classes": read_weights("hf://me/nano").classes[:2],
    "other": [other(images).shape[1], str(caught[0].message)],
    "fresh": fbnetv3.build_model("hf://me/nano")(images).shape[1],
    "detector": fbnetv3.build_model("hf://me/cells", pretrained=True).classes,
    "features": fbnetv3.build_model("hf://me/nano", 0, pretrained=True)(images).ndim,
}))
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that save_pretrained wrote."""
    folder = tmp_path_factory.mktemp("saved")
    HubClassifier.from_weights(NAME).save_pretrained(folder)
    return folder


def test_a_folder_has_weights_config_and_card(saved: Path) -> None:
    assert {path.name for path in saved.iterdir()} == {
        *("README.md", "config.json", "model.safetensors")
    }
    card = (saved / "README.md").read_text()
    assert "| top-1 accuracy | 82.39% | measured |" in card
    assert card.startswith("---\nlicense: apache-2.0\n")


def test_a_folder_is_loaded(saved: Path) -> None:
    loaded = HubClassifier.from_pretrained(saved)
    expected = from_zoo(NAME)
    assert not loaded.training
    assert loaded.classifier().classes == expected.classes
    scores = loaded.classifier().scores([IMAGE])
    assert torch.equal(scores, expected.scores([IMAGE]))
    # the file alone is enough for fbnetv3-predict and MODEL.WEIGHTS
    assert torch.equal(from_file(saved).scores([IMAGE]), scores)


def test_weights_of_a_training(tmp_path: Path) -> None:
    model = HubClassifier.from_weights(package_dir() / f"{NAME}.safetensors", licence="MIT")
    model.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text().startswith("---\nlicense: mit\n")
    assert torch.equal(
        HubClassifier.from_pretrained(tmp_path).classifier().scores([IMAGE]),
        from_zoo(NAME).scores([IMAGE]),
    )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"classes": None}, "lacks classes"),
        ({"mean": "text"}, "has mean="),
        ({"arch": "no_such.yaml"}, "names the file"),
        ({"resolution": 10**9}, "has resolution="),
    ],
)
def test_a_wrong_config_is_refused(
    saved: Path, tmp_path: Path, changes: dict[str, object], says: str
) -> None:
    config = {**json.loads((saved / "config.json").read_text()), **changes}
    config = {key: value for key, value in config.items() if value is not None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes((saved / "model.safetensors").read_bytes())
    with pytest.raises(WeightsFileError, match=says):
        HubClassifier.from_pretrained(tmp_path)


def test_a_detector_is_refused() -> None:
    with pytest.raises(WeightsFileError, match="fbnetv3-zoo card RUN"):
        HubClassifier.from_weights(package_dir() / "retinanet_fbnetv3_a0.bccd.safetensors")


def test_a_round_trip_through_the_hub(hub: Hub, tmp_path: Path) -> None:
    detector = (package_dir() / "retinanet_fbnetv3_a0.bccd.safetensors").read_bytes()
    hub.repositories["me/cells"] = {"model.safetensors": detector}
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path)}
    environment |= {"PYTHONPATH": str(ROOT), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    command = [sys.executable, "-c", ROUND_TRIP]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    values = json.loads(run.stdout.splitlines()[-1])
    assert values["loaded"]
    assert values["built"]
    assert values["classes"] == ["airplane", "automobile"]
    assert values["other"][0] == 3
    assert "hf://me/nano has weights for 10 classes" in values["other"][1]
    assert values["fresh"] == 10
    assert values["features"] == 2
    assert values["detector"] == ["RBC", "WBC", "Platelets"]
    files = hub.repositories["me/nano"]
    assert set(files) == {"README.md", "config.json", "model.safetensors"}
    assert b"hf://me/nano" in files["README.md"]
