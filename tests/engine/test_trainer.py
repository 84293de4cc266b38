"""One training step: losses, gradients, random draws, clipping, non-finite losses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from detectron2.engine import HookBase
from torch import Tensor, nn

from fbnetv3.engine.optim import OptimError
from fbnetv3.engine.trainer import NonFiniteLossError, Trainer


class Losses:
    """A task of several losses of one weight: total = 3 w x."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, float]] = []
        self.draws: list[float] = []

    def losses(self, model: nn.Module, batch: Tensor, iteration: int) -> dict[str, Tensor]:
        self.seen.append((iteration, float(batch)))
        self.draws.append(float(torch.rand(())))
        out = model(batch.view(1, 1)).sum()
        return {"loss_a": out, "loss_b": 2 * out}

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return {}


class Spy(HookBase):
    def __init__(self) -> None:
        self.latest: list[dict[str, float]] = []

    def after_step(self) -> None:
        latest = self.trainer.storage.latest()
        self.latest.append({name: value for name, (value, _) in latest.items()})


def make(task: Losses, first: int = 0, rank: int = 0, **changes: Any) -> tuple[Trainer, nn.Linear]:
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)

    def batches() -> Iterator[Tensor]:
        value = first
        while True:
            yield torch.tensor(float(changes.get("value", value)))
            value += 1

    trainer = Trainer(
        model=model,
        optimizer=optimizer,
        scheduler=torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: 1.0),
        batches=batches(),
        task=task,
        seed=7,
        rank=rank,
        clip_grad_norm=changes.get("clip", 0.0),
        device=torch.device("cpu"),
    )
    return trainer, model


def test_a_step_follows_the_sum_of_losses() -> None:
    trainer, model = make(Losses(), value=2.0)
    trainer.train(0, 1)
    assert model.weight.item() == pytest.approx(1 - 0.5 * 3 * 2)


class NeedsAKey(torch.optim.SGD):
    """A user's optimizer that reads a key of its groups, or of its states, that is not there."""

    def __init__(self, where: str, params: Any) -> None:
        super().__init__(params, lr=0.5)
        self.where = where

    def step(self, closure: Any = None) -> Any:
        group = self.param_groups[0]
        return group["beta3"] if self.where == "group" else self.state[group["params"][0]]["mean"]


@pytest.mark.parametrize(("where", "key"), [("group", "beta3"), ("state", "mean")])
def test_an_optimizer_without_the_key_that_its_step_needs(where: str, key: str) -> None:
    trainer, model = make(Losses())
    trainer.optimizer = NeedsAKey(where, model.parameters())
    with pytest.raises(OptimError, match=f"the step of NeedsAKey needs the key '{key}', which"):
        trainer.train(0, 1)


def test_gradients_do_not_accumulate() -> None:
    trainer, model = make(Losses(), value=1.0)
    trainer.train(0, 3)
    assert model.weight.item() == pytest.approx(1 - 3 * 0.5 * 3)


def test_losses_are_recorded() -> None:
    trainer, _ = make(Losses(), value=1.0)
    spy = Spy()
    trainer.register_hooks([spy])
    trainer.train(0, 1)
    assert spy.latest[0].items() >= {"loss_a": 1.0, "loss_b": 2.0, "total_loss": 3.0}.items()
    assert 0 <= spy.latest[0]["data_time"] < 1


def test_clipping() -> None:
    trainer, model = make(Losses(), value=100.0, clip=0.1)
    trainer.train(0, 1)
    assert model.weight.item() == pytest.approx(1 - 0.5 * 0.1, rel=1e-4)


def test_draws_depend_on_the_iteration_alone() -> None:
    whole, part, other = Losses(), Losses(), Losses()
    make(whole)[0].train(0, 4)
    torch.rand(5)
    make(part, first=2)[0].train(2, 4)
    make(other, rank=1)[0].train(0, 4)
    assert part.seen == whole.seen[2:]
    assert part.draws == whole.draws[2:]
    assert len({*whole.draws, *other.draws}) == 8


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_a_non_finite_loss(value: float) -> None:
    trainer, model = make(Losses(), value=value)
    with pytest.raises(NonFiniteLossError) as caught:
        trainer.train(3, 5)
    text = str(caught.value)
    assert "\n" not in text
    for part in ("loss_a = ", "loss_b = ", "iteration 3", "lr 0.5", "batch 3 of seed 7", "rank 0"):
        assert part in text
    assert model.weight.item() == 1.0  # no step was made
