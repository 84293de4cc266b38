"""AdamW, Lion and Muon, layer-wise learning rates, and frozen parts, against other libraries."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from fbnetv3.config import ConfigError
from fbnetv3.engine.freezing import FrozenNormsHook, freeze
from fbnetv3.engine.layer_rates import layer_numbers, lr_factors
from fbnetv3.engine.optim import OptimError, build_optimizer
from fbnetv3.recipe import Recipe
from fbnetv3.registries import OPTIMIZERS
from tests.engine.test_optim import make_net, train

timm_optim = pytest.importorskip("timm.optim")
BASE = {"lr": 0.026, "reference_batch": 256, "weight_decay": 0.01, "weight_decay_norm": 0.01}


def reference(kind: str, model: nn.Module) -> torch.optim.Optimizer:
    params = list(model.parameters())
    if kind == "adamw":
        return torch.optim.AdamW(params, 0.026, (0.9, 0.999), weight_decay=0.01)
    if kind == "lion":
        return timm_optim.Lion(params, 0.026, (0.9, 0.99), weight_decay=0.01)
    head = [{"params": params[4:], "use_fallback": True}]
    groups: Any = [{"params": params[:4]}, *head]
    return timm_optim.Muon(groups, 0.026, 0.01, momentum=0.9, nesterov=True, betas=(0.9, 0.95))


@pytest.mark.parametrize("kind", ["adamw", "lion", "muon"])
def test_steps_equal_those_of_the_library(kind: str) -> None:
    ours, theirs = make_net(), make_net()
    train(ours, build_optimizer(ours, Recipe(optimizer=kind, **BASE)), range(12))
    train(theirs, reference(kind, theirs), range(12))
    for left, right in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-6, atol=1e-7)


def test_beta2_and_momentum_are_the_betas() -> None:
    recipe = Recipe(optimizer="adamw", momentum=0.8, beta2=0.95)
    assert build_optimizer(make_net(), recipe).param_groups[0]["betas"] == (0.8, 0.95)


def test_layer_decay_equals_that_of_timm() -> None:
    import timm

    model = timm.create_model(
        "vit_tiny_patch16_224", depth=3, embed_dim=24, num_heads=3, num_classes=4
    )
    groups = timm_optim.param_groups_layer_decay(model, layer_decay=0.6)
    expected = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    factors = lr_factors(model, Recipe(layer_decay=0.6))
    for name, param in model.named_parameters():
        assert factors[name] == pytest.approx(expected[id(param)]), name
    optimizer = build_optimizer(model, Recipe(layer_decay=0.6, head_lr_factor=5.0))
    rates = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    assert rates[id(model.head.weight)] == pytest.approx(5 * 0.026)
    assert rates[id(model.cls_token)] == pytest.approx(0.026 * 0.6**4)
    assert len(rates) == len(list(model.parameters()))


def test_blocks_of_a_stage_are_layers() -> None:
    import timm

    model = timm.create_model("convnext_atto", depths=(1, 2, 1, 1), dims=(4, 8, 8, 8))
    layers = layer_numbers(model)
    first = {layers[n] for n in layers if n.startswith("stages.1.blocks.0.")}
    second = {layers[n] for n in layers if n.startswith("stages.1.blocks.1.")}
    assert len(first) == len(second) == 1
    assert max(second) == max(first) + 1
    assert layers["stem.0.weight"] < layers["stages.0.blocks.0.conv_dw.weight"]
    assert layers["head.fc.weight"] == max(layers.values())


def test_equal_rates_keep_the_groups_of_earlier_checkpoints() -> None:
    assert len(build_optimizer(make_net(), Recipe()).param_groups) == 2


def test_frozen_parts_keep_weights_and_statistics() -> None:
    model = make_net()
    norms = freeze(model, "0, 1.*")
    before = copy.deepcopy(model.state_dict())
    optimizer = build_optimizer(model, Recipe(optimizer="sgd"))
    for step in range(3):
        model.train()
        FrozenNormsHook(norms).before_step()
        train(model, optimizer, [step])
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"4.weight", "4.bias"}


def test_a_pattern_without_a_match_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"MODEL\.FREEZE: 'stem' matches no parameter.*0, 1, 4"):
        freeze(make_net(), "0,stem")


def _needs_a_key(groups, recipe):
    return torch.optim.SGD(groups, recipe.learning_rate)


def _refuses_a_value(groups, recipe):
    return torch.optim.SGD(groups, lr=-1.0)


class KeysOfOthers(torch.optim.Optimizer):
    """An optimizer whose step reads a key that its groups do not have."""

    def __init__(self, groups: Any, **defaults: float) -> None:
        super().__init__(groups, defaults)

    def step(self, closure: Any = None) -> Any:
        self.param_groups[0]["beta"]


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (lambda groups, recipe: KeysOfOthers(groups), "lack the key 'lr'.*'lr': recipe.scaled_lr"),
        (_needs_a_key, "cannot be made .AttributeError: .*'learning_rate'"),
        (_refuses_a_value, "cannot be made .ValueError: Invalid learning rate"),
        (lambda groups: None, "cannot be made .TypeError"),
        (lambda groups, recipe: recipe, "its function made a Recipe, not a torch Optimizer"),
    ],
)
def test_a_registered_optimizer_that_cannot_be_made_gives_one_line(
    factory: Any, message: str
) -> None:
    name = f"broken_{len(OPTIMIZERS.names())}"
    OPTIMIZERS.register(name)(factory)
    with pytest.raises(OptimError, match=f"^optimizer {name}.*{message}"):
        build_optimizer(make_net(), Recipe(optimizer=name))
