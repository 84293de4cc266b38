"""Networks can be traced with torch's tools, with and without gradients, and features taken."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor

from fbnetv3.arch import Arch, Block, get_arch
from fbnetv3.arch.registry import builtin_families, parse_family
from fbnetv3.arch.scaling import scale
from fbnetv3.modeling import build_model, deploy
from fbnetv3.modeling.blocks import ACTIVATIONS
from tests.modeling.networks import images, with_random_statistics

# hswish with squeeze-and-excitation; relu with groups, shuffles and skips; swish; a pooling stage;
# universal and fused inverted bottlenecks; at least one network of each family. The fast tests use
# the first two networks only.
QUICK = ["fbnetv3_a0", "fbnetv3_nano_a"]
NAMES = [
    *QUICK,
    "fbnet_a",
    "fbnetv2_f1",
    "efficientnet_b0",
    "mobilenetv3_large_100",
    "mobilenetv4_conv_medium",
]
# Networks whose inference form is traced, too: one for each kind of activation, as it takes longer.
DEPLOYED = ["fbnetv3_a0", "fbnet_a", "fbnetv2_f1"]
MODES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "with gradients": torch.enable_grad,
    "without gradients": torch.no_grad,
}


def _params(names: Sequence[str]) -> list[Any]:
    marks = {name: () if name in QUICK else pytest.mark.slow for name in names}
    return [pytest.param(name, marks=marks[name], id=name) for name in names]


def _kind(block: Block, before: Block) -> tuple[Any, ...]:
    """Returns what decides which operations a row consists of, besides their sizes."""
    options = {name: min(v, 2) if name.endswith("groups") else v for name, v in block.options}
    skips = block.s == 1 and block.c == before.c
    expands = block.e is not None and block.e > 1
    return block.op, block.s, block.act, block.se, skips, expands, *sorted(options.items())


def _one_row_of_each_kind(arch: Arch) -> Arch:
    """Leaves out rows with the operations of others: tracing takes as long as a table is."""
    rows: list[Block] = []
    kinds = set()
    for block in arch.blocks:
        kind = _kind(block, rows[-1] if rows else block)
        if kind not in kinds or block.stage != rows[-1].stage:
            rows.append(block)
            kinds.add(kind)
    return arch.replace(blocks=tuple(rows))


@pytest.fixture(scope="module", params=_params(NAMES))
def model(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    small = scale(_one_row_of_each_kind(get_arch(request.param)), 0.25, 0.3)
    return with_random_statistics(build_model(small, 10)).eval()


@pytest.fixture(params=MODES.values(), ids=MODES.keys())
def mode(request: pytest.FixtureRequest) -> Any:
    with request.param():
        yield


def test_each_family_is_traced() -> None:
    for file, text in builtin_families().items():
        assert {arch.name for arch in parse_family(text, file=file)} & set(NAMES), file


def _assert_equal(traced: Callable[[Tensor], Tensor], model: nn.Module) -> None:
    x = images(3)
    before = x.clone()
    for context in MODES.values():
        with context():
            torch.testing.assert_close(traced(x), model(x), rtol=0, atol=0)
    assert torch.equal(x, before)


def test_jit_trace(model: nn.Module, mode: None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", torch.jit.TracerWarning)
        traced = torch.jit.trace(model, images())  # which compares the outputs itself
    _assert_equal(traced, model)


def test_symbolic_trace(model: nn.Module, mode: None) -> None:
    _assert_equal(torch.fx.symbolic_trace(model), model)


def test_export(model: nn.Module) -> None:
    free = torch.export.Dim.DYNAMIC
    shapes = ({0: free, 2: free, 3: free},)
    exported = torch.export.export(model, (images(3),), dynamic_shapes=shapes).module()
    _assert_equal(exported, model)
    for x in (images(2, 96), images(5, 128)[:, :, :, :80]):
        torch.testing.assert_close(exported(x), model(x), rtol=0, atol=0)


def test_features(model: nn.Module, mode: None) -> None:
    count = len(model.backbone.stages)
    nodes = {f"backbone.stages.{i}": f"c{i}" for i in range(count)}
    features = create_feature_extractor(model, nodes)(images())
    for i, expected in enumerate(model.forward_stages(images())):
        assert torch.equal(features[f"c{i}"], expected)


def test_inputs_of_activations_stay(model: nn.Module, mode: None) -> None:
    kept: list[tuple[Tensor, Tensor]] = []
    kinds = tuple(ACTIVATIONS.values())
    hooks = [
        module.register_forward_hook(lambda _, args, out: kept.append((args[0], args[0].clone())))
        for module in model.modules()
        if isinstance(module, kinds)
    ]
    hooks += [
        module.register_forward_pre_hook(lambda _, args: kept.append((args[0], args[0].clone())))
        for module in model.modules()
        if isinstance(module, kinds)
    ]
    model(images())
    for hook in hooks:
        hook.remove()
    assert kept
    assert all(torch.equal(tensor, before) for tensor, before in kept)


def test_tracing_in_training_mode(model: nn.Module) -> None:
    graph = torch.fx.symbolic_trace(model.train())
    x = images(3)
    torch.testing.assert_close(graph(x), model(x), rtol=0, atol=0)
    model.eval()


@pytest.mark.parametrize("model", _params(DEPLOYED), indirect=True)
def test_a_deployed_network_overwrites_its_activations(model: nn.Module) -> None:
    deployed = deploy(model)
    kinds = tuple(ACTIVATIONS.values())
    in_place = [m.inplace for m in deployed.modules() if isinstance(m, kinds)]
    assert in_place
    assert all(in_place)
    assert not any(m.inplace for m in model.modules() if isinstance(m, kinds))
    x = images(3).requires_grad_()
    (expected,) = torch.autograd.grad(model(x)[:, 0].sum(), x)
    (gradient,) = torch.autograd.grad(deployed(x)[:, 0].sum(), x)
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("model", _params(DEPLOYED), indirect=True)
def test_a_deployed_network_can_be_traced(model: nn.Module) -> None:
    """Traced once, as none of its parameters needs a gradient; called in both modes."""
    deployed = deploy(model)
    x = images()
    traced = torch.jit.trace(deployed, x)
    for context in MODES.values():
        with context():
            torch.testing.assert_close(traced(x), deployed(x), rtol=0, atol=0)
