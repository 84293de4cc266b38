"""RMSpropTF against timm's, the parameter groups, and why torch's plain RMSProp is not used."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim import Optimizer

from fbnetv3.engine.optim import OptimError, RMSpropTF, build_optimizer
from fbnetv3.recipe import Recipe


def make_net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = [nn.Conv2d(1, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3)]
    return nn.Sequential(*layers)


def batch(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(8, 1, 8, 8, generator=generator)
    return images, torch.randint(3, (8,), generator=generator)


def train(model: nn.Module, optimizer: Optimizer, steps: Iterable[int]) -> None:
    for step in steps:
        for group in optimizer.param_groups:
            group["lr"] = 0.026 * (0.5 if step >= 10 else 1.0)
        images, labels = batch(step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()


@pytest.mark.parametrize("momentum", [0.9, 0.0])
@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_equals_timm_over_20_steps(momentum: float, weight_decay: float) -> None:
    timm_optim = pytest.importorskip("timm.optim")
    ours, theirs = make_net(), make_net()
    settings_ = {"lr": 0.026, "alpha": 0.9, "eps": 1e-3, "momentum": momentum}
    settings_["weight_decay"] = weight_decay
    train(ours, RMSpropTF(ours.parameters(), **settings_), range(20))
    train(theirs, timm_optim.RMSpropTF(theirs.parameters(), **settings_), range(20))
    for left, right in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-6, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    grads=st.lists(st.floats(-5, 5), min_size=1, max_size=8),
    lr=st.floats(1e-4, 0.5),
    alpha=st.floats(0.0, 0.99),
    momentum=st.floats(0.0, 0.99),
    decay=st.floats(0.0, 0.1),
)
def test_equals_the_formula(
    grads: list[float], lr: float, alpha: float, momentum: float, decay: float
) -> None:
    param = nn.Parameter(torch.tensor([1.5], dtype=torch.float64))
    optimizer = RMSpropTF([param], lr, alpha, 1e-3, momentum, decay)
    weight, square, buffer = 1.5, 1.0, 0.0
    for grad in grads:
        param.grad = torch.tensor([grad], dtype=torch.float64)
        optimizer.step()
        grad += decay * weight
        square = alpha * square + (1 - alpha) * grad**2
        buffer = momentum * buffer + lr * grad / (square + 1e-3) ** 0.5
        weight -= buffer
    assert param.item() == pytest.approx(weight, rel=1e-9, abs=1e-9)


def first_losses(make: Callable[[Iterable[nn.Parameter]], Optimizer], seed: int) -> list[float]:
    torch.manual_seed(seed)
    images = torch.randn(256, 1, 12, 12)
    bright, left = images.mean((1, 2, 3)) > 0, images[..., :6].mean((1, 2, 3)) > 0
    labels = bright.long() + 2 * left.long()
    model = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, 2), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, 2), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(128, 4)),
    )
    optimizer = make(model.parameters())
    losses = []
    for _ in range(20):
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_plain_rmsprop_starts_by_diverging_and_ours_does_not(seed: int) -> None:
    plain = first_losses(lambda params: torch.optim.RMSprop(params, lr=0.026), seed)
    ours = first_losses(lambda params: RMSpropTF(params, lr=0.026), seed)
    assert max(plain) > 2.5 * plain[0]  # measured here: 3.4 to 5.3 times
    assert max(ours) <= ours[0]
    assert ours[-1] < 0.5 * ours[0]


def test_the_first_step_is_bounded_by_the_gradient_not_by_lr_alone() -> None:
    tiny = 1e-3
    moved = []
    for make in (torch.optim.RMSprop, RMSpropTF):
        param = nn.Parameter(torch.zeros(1))
        param.grad = torch.full((1,), tiny)
        make([param], lr=0.026).step()
        moved.append(abs(param.item()))
    assert moved[0] == pytest.approx(0.26, rel=1e-3)
    assert moved[1] == pytest.approx(0.026 * tiny / (0.9 + 1e-3) ** 0.5, rel=1e-3)


@pytest.mark.parametrize("kind", ["rmsprop", "sgd"])
def test_saved_and_loaded_it_continues_bit_for_bit(kind: str, tmp_path) -> None:
    recipe = Recipe(optimizer=kind, weight_decay=1e-3)
    through, model = make_net(), make_net()
    train(through, build_optimizer(through, recipe), range(20))

    optimizer = build_optimizer(model, recipe)
    train(model, optimizer, range(9))
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(state, tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed = make_net(5)
    resumed.load_state_dict(state["model"])
    optimizer = build_optimizer(resumed, recipe)
    optimizer.load_state_dict(state["optimizer"])
    train(resumed, optimizer, range(9, 20))
    for left, right in zip(through.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(left, right)


def test_parameters_without_gradient_and_other_dtypes() -> None:
    params = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2, dtype=torch.float64))]
    unused = nn.Parameter(torch.ones(2))
    optimizer = RMSpropTF([params[0], unused, params[1]], lr=0.1)
    for param in params:
        param.grad = torch.ones_like(param)
    optimizer.step()
    assert torch.equal(unused, torch.ones(2))
    assert unused not in optimizer.state
    torch.testing.assert_close(params[0].double(), params[1])
    assert params[0][0].item() < 1.0


def test_step_returns_the_loss_of_its_closure() -> None:
    param = nn.Parameter(torch.ones(1))
    optimizer = RMSpropTF([param], lr=0.1)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (param**2).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 1.0
    assert param.item() < 1.0


def test_keeps_channels_last() -> None:
    conv = nn.Conv2d(4, 4, 3).to(memory_format=torch.channels_last)
    optimizer = RMSpropTF(conv.parameters(), lr=0.1)
    conv(torch.ones(1, 4, 5, 5)).sum().backward()
    optimizer.step()
    state = optimizer.state[conv.weight]
    assert all(t.stride() == conv.weight.stride() for t in state.values())


@pytest.mark.parametrize(
    "wrong",
    [{"lr": -1.0}, {"alpha": 1.0}, {"eps": 0.0}, {"momentum": 1.0}, {"weight_decay": -1e-5}],
)
def test_values_out_of_range(wrong: dict[str, float]) -> None:
    key = next(iter(wrong))
    with pytest.raises(OptimError, match=f"{key}=.*allowed"):
        RMSpropTF([nn.Parameter(torch.ones(1))], **{"lr": 0.1, **wrong})


def test_groups_separate_weights_from_norms_and_biases() -> None:
    model = make_net()
    recipe = Recipe(weight_decay=0.5, weight_decay_norm=0.25, batch_size=64)
    weights, norms = build_optimizer(model, recipe).param_groups
    names = {id(p): name for name, p in model.named_parameters()}
    assert {names[id(p)] for p in weights["params"]} == {"0.weight", "4.weight"}
    assert {names[id(p)] for p in norms["params"]} == {"0.bias", "1.weight", "1.bias", "4.bias"}
    assert (weights["weight_decay"], norms["weight_decay"]) == (0.5, 0.25)
    assert weights["lr"] == norms["lr"] == pytest.approx(0.026 / 4)


def test_frozen_parameters_are_left_out() -> None:
    model = make_net()
    model[0].requires_grad_(False)
    frozen = copy.deepcopy(model[0].weight)
    optimizer = build_optimizer(model, Recipe(weight_decay=0.5))
    assert sum(len(g["params"]) for g in optimizer.param_groups) == 4
    train(model, optimizer, range(2))
    assert torch.equal(model[0].weight, frozen)
    with pytest.raises(OptimError, match="no trainable parameters"):
        build_optimizer(model.requires_grad_(False), Recipe())


def test_optimizers_of_recipes() -> None:
    model = make_net()
    rmsprop = build_optimizer(model, Recipe(momentum=0.8))
    assert isinstance(rmsprop, RMSpropTF)
    assert rmsprop.defaults["momentum"] == 0.8
    sgd = build_optimizer(model, Recipe(optimizer="sgd", momentum=0.8))
    assert isinstance(sgd, torch.optim.SGD)
    assert (sgd.defaults["momentum"], sgd.defaults["nesterov"]) == (0.8, True)
    plain = build_optimizer(model, Recipe(optimizer="sgd", momentum=0.0))
    assert plain.defaults["nesterov"] is False
