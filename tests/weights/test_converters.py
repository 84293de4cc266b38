"""State dicts in all layouts load strictly and reproduce the outputs of their networks."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fbnetv3.arch import get_arch
from fbnetv3.arch.scaling import aligned
from fbnetv3.modeling import build_model
from fbnetv3.weights.converters import load_state_dict
from fbnetv3.weights.errors import LoadError
from fbnetv3.weights.load import load_weights

TOLERANCE = 1e-4  # of the mean |logit|
SMALL = "fbnetv3_a0"


def _copy(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone().contiguous() for key, value in model.state_dict().items()}


@pytest.fixture(scope="module")
def small() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return _copy(build_model(SMALL, num_classes=7))


@pytest.mark.parametrize("name", ["FBNetV2_F1", "FBNetV3_A", "FBNetV3_A0", "fbnet_c"])
def test_published_weights_give_published_logits(
    name: str,
    published: dict[str, dict[str, Any]],
    published_weights: Callable[[str], dict[str, torch.Tensor]],
) -> None:
    model, golden = build_model(name.lower()).eval(), published[name]
    tensors = published_weights(name)
    summary = load_state_dict(model, tensors)
    assert (summary.layout, summary.loaded) == ("fbnet", len(tensors))
    assert summary.zero_filled == summary.skipped == ()
    size = golden["input_size"]
    images = np.random.RandomState(0).rand(2, 3, size, size).astype(np.float32)
    with torch.inference_mode():
        logits = model(torch.from_numpy(images))
    worst = (logits[:, :8] - torch.tensor(golden["logits_first8"])).abs().max()
    assert worst <= TOLERANCE * golden["logits_abs_mean"]
    assert logits.argmax(1).tolist() == golden["argmax"]


def _fill_timm(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Returns random weights and batch norm statistics with which outputs depend on the images."""
    tensors = {}
    for key, value in model.state_dict().items():
        seed = torch.Generator().manual_seed(zlib.crc32(key.encode()))
        x = torch.randn(value.shape, generator=seed)
        if key.endswith("num_batches_tracked"):
            x = torch.tensor(5)
        elif key.endswith("running_var"):
            x = 0.5 + 0.5 * x.abs()
        elif value.dim() == 4:
            x = x * (2 / value[0].numel()) ** 0.5
        elif value.dim() == 1:
            x = 0.1 * x + key.endswith("weight")
        tensors[key] = x
    return tensors


@pytest.mark.parametrize("name", ["fbnetv3_b", "fbnetv3_d", "fbnetv3_g"])
def test_timm_weights_give_timm_logits(name: str) -> None:
    timm = pytest.importorskip("timm")
    theirs = timm.create_model(name, pretrained=False).eval()
    tensors = _fill_timm(theirs)
    theirs.load_state_dict(tensors)
    ours = build_model(aligned(get_arch(name))).eval()
    summary = load_state_dict(ours, tensors)
    assert (summary.layout, summary.loaded) == ("timm", len(tensors))
    assert summary.zero_filled == ("backbone.stages.0.0.conv.bias",)
    assert "zero-filled backbone.stages.0.0.conv.bias" in str(summary)
    images = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0)).double()
    with (
        torch.inference_mode()
    ):  # in double precision, since random networks amplify rounding errors
        expected, logits = theirs.double()(images), ours.double()(images)
    assert (logits - expected).abs().max() <= 1e-9 * expected.abs().mean()
    assert expected.std(0).mean() > 1e-3 * expected.abs().mean()  # outputs depend on the images


def test_timm_weights_warn_where_paddings_differ() -> None:
    timm = pytest.importorskip("timm")
    tensors = timm.create_model("fbnetv3_b", pretrained=False).state_dict()
    with pytest.warns(UserWarning, match="aligned"):
        load_state_dict(build_model("fbnetv3_b"), tensors)


def test_own_layout_and_summary(small: dict[str, torch.Tensor]) -> None:
    model = build_model(SMALL, num_classes=7)
    summary = load_state_dict(model, small, source="x.pth")
    assert str(summary) == f"loaded {len(small)} tensors (fbnetv3 layout) from x.pth"
    assert all(torch.equal(value, small[key]) for key, value in model.state_dict().items())


def test_missing_counters_are_derived(small: dict[str, torch.Tensor]) -> None:
    old = {key: v for key, v in small.items() if not key.endswith("num_batches_tracked")}
    summary = load_state_dict(build_model(SMALL, num_classes=7), old)
    assert len(summary.zero_filled) == len(small) - len(old) > 0
    assert summary.loaded == len(old)


def _without(tensors: dict[str, torch.Tensor], key: str) -> dict[str, torch.Tensor]:
    return {k: v for k, v in tensors.items() if k != key}


KEY = "backbone.stages.1.0.dw.conv.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: _without(t, KEY), f"1 missing: {KEY}"),
        (lambda t: {**t, "extra.weight": t[KEY]}, r"1 unexpected: extra\.weight"),
        (
            lambda t: {**t, KEY: t[KEY][:, :, :1]},
            r"1 of another shape: .*\(16, 1, 1, 3\), expected",
        ),
        (lambda t: {}, r"missing: .*\(\d+ in all\)"),
    ],
    ids=["missing", "unexpected", "shape", "empty"],
)
def test_tensors_that_do_not_fit_are_named_and_nothing_is_changed(
    small: dict[str, torch.Tensor], change: Callable[..., Any], words: str
) -> None:
    model = build_model(SMALL, num_classes=7)
    before = _copy(model)
    with pytest.raises(LoadError, match=words) as caught:
        load_state_dict(model, change(small), allow_new_head=True)
    assert "\n" not in str(caught.value)
    assert SMALL in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_weights_of_another_architecture(
    published_weights: Callable[[str], dict[str, torch.Tensor]],
) -> None:
    with pytest.raises(LoadError, match=r"do not fit fbnetv3_a\b"):
        load_state_dict(build_model("fbnetv3_a"), published_weights("fbnet_a"))


def test_another_number_of_classes(small: dict[str, torch.Tensor]) -> None:
    model = build_model(SMALL, num_classes=5)
    before = _copy(model)
    with pytest.raises(LoadError, match=r"have 7 classes, the model has 5; .*num_classes=7"):
        load_state_dict(model, small)
    summary = load_state_dict(model, small, allow_new_head=True)
    assert summary.skipped == ("head.fc.weight", "head.fc.bias")
    assert "new classifier" in str(summary)
    after = model.state_dict()
    assert torch.equal(after["head.fc.weight"], before["head.fc.weight"])
    assert torch.equal(after[KEY], small[KEY])


def test_published_head_of_another_size_is_left(
    published_weights: Callable[[str], dict[str, torch.Tensor]],
) -> None:
    model = build_model("fbnetv3_a0", num_classes=3)
    summary = load_state_dict(model, published_weights("FBNetV3_A0"), allow_new_head=True)
    assert summary.skipped == ("head.fc.weight", "head.fc.bias")


def test_torchvision_weights_are_plain() -> None:
    tensors = _copy(build_model("torchvision/resnet18", num_classes=4))
    summary = load_state_dict(build_model("torchvision/resnet18", num_classes=4), tensors)
    assert (summary.layout, summary.loaded) == ("plain", len(tensors))
    other = build_model("torchvision/resnet18", num_classes=9)
    summary = load_state_dict(other, tensors, allow_new_head=True)
    assert summary.skipped == ("fc.weight", "fc.bias")
    with pytest.raises(LoadError, match="missing"):
        load_state_dict(other, _without(tensors, "layer1.0.conv1.weight"), allow_new_head=True)


def test_load_weights_from_a_file(tmp_path: Path, small: dict[str, torch.Tensor]) -> None:
    path = tmp_path / "w.safetensors"
    save_file(small, path)
    model = build_model(SMALL, num_classes=7)
    assert str(path) in str(load_weights(model, path))
    assert torch.equal(model.state_dict()[KEY], small[KEY])
    with pytest.raises(LoadError, match=r"w\.safetensors"):
        load_weights(build_model(SMALL), path)
