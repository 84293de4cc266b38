"""Networks of torchvision and timm: arguments in their names, the variant for small images."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import timm
import torch
import torchvision
from fvcore.nn import FlopCountAnalysis

from fbnetv3 import build_model
from fbnetv3.arch import ArchError
from fbnetv3.arch.library_names import (
    format_name,
    is_library_name,
    parse_library_name,
    parse_query,
    with_low_resolution,
)
from fbnetv3.modeling import reset_classifier
from fbnetv3.registries import NETWORKS

THIN = "timm/resnet18?channels=(16,32,64,128)"


def _strides(model: torch.nn.Module) -> dict[str, Any]:
    return {n: m.stride for n, m in model.named_modules() if getattr(m, "stride", 1) in (2, (2, 2))}


def test_names() -> None:
    parsed = parse_library_name(f"{THIN}&low_resolution=True")
    assert (parsed.library, parsed.name, parsed.low_resolution) == ("timm", "resnet18", True)
    assert parsed.arguments == {"channels": (16, 32, 64, 128)}
    assert with_low_resolution("torchvision/resnet18") == "torchvision/resnet18?low_resolution=True"
    off = with_low_resolution("timm/resnet18?low_resolution=False&act_layer=gelu")
    assert off == "timm/resnet18?act_layer=gelu&low_resolution=True"
    assert with_low_resolution(THIN) == f"{THIN}&low_resolution=True"
    assert with_low_resolution(with_low_resolution(THIN)) == with_low_resolution(THIN)
    assert is_library_name(THIN)
    assert not any(map(is_library_name, ("timm", "fbnetv3_a", "timm2/x", "a/timm/x", 3)))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("0.5", 0.5),
        ("1e-5", 1e-5),
        ("-2", -2),
        ("true", True),
        ("False", False),
        ("gelu", "gelu"),
        ("'gelu'", "gelu"),
        ("[1,2]", (1, 2)),
        ("(1, 2)", (1, 2)),
        ("[[1,2],(3,4)]", ((1, 2), (3, 4))),
        ("[relu,true,1e1]", ("relu", True, 10.0)),
    ],
)
def test_arguments_are_typed_plain_values(text: str, value: Any) -> None:
    parsed = parse_query(f"timm/resnet18?key={text}")["key"]
    assert parsed == value
    assert type(parsed) is type(value)
    written = format_name("timm/resnet18", {"key": value, "other": 1})
    assert parse_query(written) == {"key": value, "other": 1}


@pytest.mark.parametrize(
    "text",
    [
        *("", "None", "nan", "inf", "../x", "a.pth", "http://x", "[]", "{}", "1+1", "9999"),
        *("[a b]", "['a' 'b']", "x" * 65, "[" * 200, "lambda: 0"),
    ],
)
def test_other_values_are_refused(text: str) -> None:
    with pytest.raises(ArchError, match=r"key: .*allowed: a bool"):
        parse_query(f"timm/resnet18?key={text}")


def test_an_argument_is_given_once() -> None:
    with pytest.raises(ArchError, match="given twice"):
        parse_query("timm/resnet18?depth=1&depth=2")
    with pytest.raises(ArchError, match=r"file: .a\.pth.: not allowed"):
        format_name("timm/resnet18", {"file": "a.pth"})


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "mobilenetv3_small_050"])
def test_timm(name: str) -> None:
    """The network and its random weights are those of timm.create_model."""
    torch.manual_seed(0)
    model = build_model(f"timm/{name}", num_classes=6, drop_rate=0.1).eval()
    torch.manual_seed(0)
    reference = timm.create_model(name, num_classes=6, drop_rate=0.1).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(model(x), reference(x))
        assert reset_classifier(model, 4)(x).shape == (2, 4)


def test_arguments() -> None:
    model = build_model(THIN, num_classes=10)
    assert model.fc.in_features == 128
    wordy = build_model("timm/resnet18?layers=[1,1,1,1]&act_layer=gelu", num_classes=10)
    assert [len(s) for s in (wordy.layer1, wordy.layer4)] == [1, 1]
    assert type(wordy.act1).__name__ == "GELU"
    small = build_model("torchvision/mobilenet_v2?width_mult=0.25", num_classes=10)
    reference = torchvision.models.mobilenet_v2(num_classes=10, width_mult=0.25)
    assert {k: v.shape for k, v in small.state_dict().items()} == {
        k: v.shape for k, v in reference.state_dict().items()
    }


def test_rates() -> None:
    model = build_model("timm/efficientnet_b0", num_classes=2, drop_rate=0.1, drop_path_rate=0.3)
    assert model.drop_rate == 0.1
    assert max(m.drop_prob for m in model.modules() if type(m).__name__ == "DropPath") > 0.25


@pytest.mark.parametrize(
    ("name", "second"),
    [
        ("torchvision/resnet18", {"maxpool"}),
        ("torchvision/mobilenet_v3_small", {"features.1.block.0.0"}),
        ("torchvision/densenet121", {"features.pool0"}),
        # the branches of a block
        (
            "torchvision/regnet_y_400mf",
            {"trunk_output.block1.block1-0.proj.0", "trunk_output.block1.block1-0.f.b.0"},
        ),
        ("timm/resnet18", {"maxpool"}),
        ("timm/efficientnet_b0", {"blocks.1.0.conv_dw"}),
    ],
)
def test_low_resolution(name: str, second: set[str]) -> None:
    plain, low = build_model(name, 10), build_model(with_low_resolution(name), 10)
    assert set(_strides(plain)) - set(_strides(low)) == second
    assert low.training
    # All layers after the second stride have up to four times as many positions.
    before, after = (
        FlopCountAnalysis(m.eval(), torch.zeros(1, 3, 32, 32)).unsupported_ops_warnings(False)
        for m in (plain, low)
    )
    assert 2 < after.total() / before.total() < 4


def test_low_resolution_draws_no_random_numbers_and_keeps_statistics() -> None:
    torch.manual_seed(0)
    plain = build_model("torchvision/resnet18", 10)
    after = torch.rand(1)
    torch.manual_seed(0)
    low = build_model("torchvision/resnet18?low_resolution=True", 10)
    assert torch.rand(1) == after
    for key, value in plain.state_dict().items():
        assert torch.equal(low.state_dict()[key], value), key


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm/resnet5", "did you mean resnet50"),
        ("timm/hf-hub:user/model", "unknown timm model"),
        ("timm/resnet18?chanels=3", "chanels: 3"),
        ("timm/efficientnet_b0?channel_multiplier=0.5", "no such argument"),  # set by the builder
        ("timm/resnet18?chanels=3", "did you mean channels"),
        ("timm/resnet18?chanels=3", "block_args, block_reduce_first, cardinality, channels"),
        ("timm/levit_128s?embeddim=3", "did you mean embed_dim"),  # of the base class
        ("timm/resnet18?pretrained=True", "pretrained: True"),
        ("timm/resnet18?checkpoint_path=x", "checkpoint_path: 'x'"),
        ("timm/resnet18?pretrained_cfg=x", "pretrained_cfg: 'x'"),
        ("timm/resnet18?device=cuda", "device: 'cuda'"),
        ("torchvision/resnet18?layers=[1,1,1,1]", "layers: (1, 1, 1, 1)"),  # set by the builder
        ("torchvision/resnet18?group=2", "did you mean groups"),
        ("torchvision/resnet18?weights=DEFAULT", "weights: 'DEFAULT'"),
        ("timm/resnet18?checkpoint_path='x.pth'", "a number of magnitude at most"),
        ("timm/resnet18?channels", "KEY=VALUE"),
        ("timm/resnet18?channels=__import__('os')", "a number of magnitude at most"),
        ("timm/resnet18?channels=(16,32,64,100000000)", "a number of magnitude at most"),
        ("timm/resnet18?low_resolution=3", "True or False"),
        ("torchvision/resnet18?weights=1", "weights: 1"),
        ("torchvision/mobilenet_v2?dropout=0.3", "dropout: 0.3"),
        ("torchvision/vit_b_16?low_resolution=True", "cannot process images of 64 pixels"),
        ("timm/vit_tiny_patch16_224?low_resolution=True", "cannot process images of 64 pixels"),
        ("timm/mixer_s32_224?low_resolution=True", "low_resolution: True"),
    ],
)
def test_bad_names(name: str, message: str) -> None:
    with pytest.raises(ArchError) as error:
        build_model(name, 10)
    assert message in str(error.value)


@pytest.mark.parametrize("arguments", [{"drop_rate": 1.0}, {"num_classes": -1}])
def test_bad_arguments(arguments: dict[str, Any]) -> None:
    with pytest.raises(ArchError, match=next(iter(arguments))):
        build_model("timm/resnet18", **arguments)


def test_a_network_without_a_rate() -> None:
    with pytest.raises(ArchError, match="no such rate"):
        build_model("timm/densenet121", 10, drop_path_rate=0.1)


def _net(num_classes: int, drop_rate: float = 0.0) -> torch.nn.Module:
    return torch.nn.Linear(1, num_classes)


@pytest.mark.parametrize(
    ("query", "rates", "message"),
    [
        ("drop_rate=0.1", {}, "drop_rate: 0.1: network my/net: this argument cannot be set in"),
        ("width=2", {}, "width: 2: network my/net has no such argument; allowed: none"),
        ("", {"drop_path_rate": 0.1}, "network my/net has no such rate; allowed: 0, unless the"),
    ],
)
def test_arguments_of_a_registered_network(
    query: str, rates: dict[str, float], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(NETWORKS._entries, "my/net", _net)
    with pytest.raises(ArchError, match=message):
        build_model(f"my/net?{query}", 10, **rates)


def test_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ArchError, match=r"pip install 'fbnetv3\[timm\]'"):
        build_model("timm/resnet18", 10)


@pytest.mark.parametrize("number", [0, -1, 2.5, "3"])
def test_a_new_classifier_needs_a_class(number: Any) -> None:
    model = build_model("torchvision/squeezenet1_1", num_classes=3)
    with pytest.raises(ArchError, match="num_classes"):
        reset_classifier(model, number)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["timm/mobilenetv3_small_050", "torchvision/mobilenet_v3_small"])
def test_networks_can_be_traced_and_exported(name: str) -> None:
    model = build_model(name, 10).eval()
    free = torch.export.Dim.DYNAMIC
    shapes = ({0: free, 2: free, 3: free},)
    exported = torch.export.export(model, (torch.randn(3, 3, 64, 64),), dynamic_shapes=shapes)
    for size in ((2, 3, 96, 96), (5, 3, 128, 80)):
        x = torch.randn(size)
        torch.testing.assert_close(exported.module()(x), model(x), rtol=0, atol=0)
        torch.testing.assert_close(torch.fx.symbolic_trace(model)(x), model(x), rtol=0, atol=0)
