"""Listing, building with weights, and preprocessing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save

import fbnetv3
from fbnetv3 import zoo
from fbnetv3.data import EvalTransform
from fbnetv3.modeling import build_model
from fbnetv3.weights import records


def test_list_models() -> None:
    names = fbnetv3.list_models("fbnetv3*")
    assert {"fbnetv3_a0", "fbnetv3_a", "fbnetv3_g"} <= set(names)
    assert all(name.startswith("fbnetv3") for name in names)
    with_weights = zoo.list_models("fbnetv3*", pretrained=True)
    assert {"fbnetv3_g.fb_in1k", "fbnetv3_g.ra2_in1k"} <= set(with_weights)
    assert zoo.list_models("*.ra2_in1k", pretrained=True) == [
        f"fbnetv3_{letter}.ra2_in1k" for letter in "bdg"
    ]
    assert zoo.list_models("fbnetv3_a", pretrained=True) == ["fbnetv3_a.fb_in1k"]
    assert zoo.list_models("retinanet_fbnetv3_a0", pretrained=True) == ["retinanet_fbnetv3_a0.bccd"]
    assert zoo.list_models("nothing*") == []


def _digest(transform: Any) -> torch.Tensor:
    noise = torch.randint(0, 256, (301, 401, 3), generator=torch.Generator().manual_seed(0))
    return transform(Image.fromarray(noise.to(torch.uint8).numpy()))


@pytest.mark.parametrize(
    ("name", "resolution", "resize"),
    [
        ("fbnetv3_a", 224, 242),
        ("fbnetv3_g", 320, 325),
        ("fbnetv3_g.ra2_in1k", 288, 303),
        ("fbnet_c", 224, 256),
        ("fbnetv2_l3", 256, 296),
    ],
)
def test_transform_is_the_records(name: str, resolution: int, resize: int) -> None:
    expected = _digest(EvalTransform(resolution, resize, "bilinear"))
    pixels = _digest(zoo.transform(name))
    assert pixels.shape == (3, resolution, resolution)
    assert torch.equal(pixels, expected)


def test_transform_of_unknown_names() -> None:
    with pytest.raises(fbnetv3.errors.FBNetError, match="fbnetv3_g"):
        zoo.transform("fbnetv3_gg")
    with pytest.raises(zoo.RecordError, match="there are"):
        zoo.transform("fbnetv3_g.none")


def test_get_without_weights_downloads_nothing(cache: Path) -> None:
    model = zoo.get("fbnetv3_a0", num_classes=4, drop_rate=0.3)
    assert model.head.fc.out_features == 4
    assert model.head.dropout.p == 0.3
    aligned = zoo.get("fbnetv3_b.ra2_in1k")
    assert all(layer.padding == layer.k // 2 for layer in aligned.arch.layers() if layer.k)
    assert zoo.get("fbnetv3_a0").head.fc.out_features == 1000
    assert not cache.exists()


@pytest.fixture
def served(
    site: Any, make_record: Callable[..., zoo.WeightRecord], monkeypatch: pytest.MonkeyPatch
) -> dict[str, torch.Tensor]:
    """A zoo whose only weights are on the test's server: a small network with 7 classes."""
    torch.manual_seed(1)
    tensors = {k: v.contiguous() for k, v in build_model("fbnetv3_a0", 7).state_dict().items()}
    site.body = save(tensors)
    record = make_record(num_classes=7)
    for module in (records, zoo.api):
        monkeypatch.setattr(module, "all_records", lambda: (record,))
    return tensors


def test_get_with_weights(served: dict[str, torch.Tensor]) -> None:
    state = zoo.get("fbnetv3_a0.test", pretrained=True).state_dict()
    assert all(torch.equal(state[key], value) for key, value in served.items())


def test_get_with_another_head(served: dict[str, torch.Tensor]) -> None:
    with pytest.warns(UserWarning, match="newly initialised"):
        model = zoo.get("fbnetv3_a0.test", pretrained=True, num_classes=3)
    assert model.head.fc.out_features == 3
    key = "backbone.stages.2.0.pw.conv.weight"
    assert torch.equal(model.state_dict()[key], served[key])


def test_zoo_addresses(served: dict[str, torch.Tensor], cache: Path) -> None:
    model = build_model("fbnetv3_a0", num_classes=7)
    summary = zoo.load_weights(model, "zoo://fbnetv3_a0.test")
    assert "zoo://fbnetv3_a0.test" in str(summary)
    assert (cache / "fbnetv3_a0.test.safetensors").is_file()


def test_wrong_shapes_name_the_address(
    served: dict[str, torch.Tensor], make_record: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = make_record(num_classes=7, name="fbnetv3_a")
    for module in (records, zoo.api):
        monkeypatch.setattr(module, "all_records", lambda: (record,))
    with pytest.raises(zoo.LoadError, match=r"zoo://fbnetv3_a\.test: .*of another shape"):
        zoo.get("fbnetv3_a.test", pretrained=True)
