"""The learning rate, as a function of the position in training and in torch's scheduler."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fbnetv3.engine.schedule import build_lr_scheduler, lr_factor, lr_table, num_steps, warmup_iters
from fbnetv3.recipe import SCHEDULES, Recipe

SHORT = {"epochs": 10.0, "warmup_epochs": 2.0}

recipes = st.builds(
    Recipe,
    schedule=st.sampled_from(list(SCHEDULES)),
    epochs=st.floats(5.0, 400.0),
    warmup_epochs=st.floats(0.0, 5.0),
    warmup_factor=st.floats(0.0, 1.0),
    decay=st.floats(0.5, 1.0),
)


@pytest.mark.parametrize(
    ("epoch", "expected"),
    [
        (0.0, 0.1),
        (2.5, 0.55),
        (5.0, 1.0),
        (5.99, 1.0),
        (6.0, 0.9875),
        (7.5, 0.9875**2),
        (400.0, 0.9875**395),
    ],
)
def test_the_papers_schedule(epoch: float, expected: float) -> None:
    assert lr_factor(Recipe(), epoch) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("epoch", "expected"), [(2.0, 1.0), (4.0, 0.5 + math.sqrt(0.125)), (6.0, 0.5), (10.0, 0.0)]
)
def test_cosine(epoch: float, expected: float) -> None:
    recipe = Recipe(schedule="cosine", **SHORT)
    assert lr_factor(recipe, epoch) == pytest.approx(expected, abs=1e-12)
    assert lr_factor(recipe, 12.0) == pytest.approx(0.0, abs=1e-12)


def test_constant_and_no_warmup() -> None:
    recipe = Recipe(schedule="constant", warmup_epochs=0.0)
    assert [lr_factor(recipe, epoch) for epoch in (0.0, 1.0, 399.0)] == [1.0, 1.0, 1.0]
    assert lr_factor(Recipe(schedule="cosine", epochs=3, warmup_epochs=3), 2.9) < 1.0


@settings(max_examples=200, deadline=None)
@given(recipe=recipes, epoch=st.floats(0.0, 400.0))
def test_factor_is_a_share_and_never_rises_after_the_warmup(recipe: Recipe, epoch: float) -> None:
    factor, later = lr_factor(recipe, epoch), lr_factor(recipe, epoch + 0.37)
    assert 0.0 <= factor <= 1.0
    if epoch >= recipe.warmup_epochs:
        assert later <= factor
    elif epoch + 0.37 < recipe.warmup_epochs:
        assert later >= factor


@settings(max_examples=200, deadline=None)
@given(
    tenths=st.integers(0, 50), done=st.integers(0, 300), iters=st.sampled_from([1, 3, 7, 10, 391])
)
def test_exponential_drops_at_whole_epochs_exactly(tenths: int, done: int, iters: int) -> None:
    """A warm-up of x.1 epochs must not shift the steps by rounding."""
    recipe = Recipe(warmup_epochs=tenths / 10, decay=0.5)
    at = tenths / 10 + done
    assert lr_factor(recipe, at) == 0.5**done
    if tenths % 10 == 0:
        assert lr_factor(recipe, round(at * iters) / iters) == 0.5**done
        assert lr_factor(recipe, (round(at * iters) + iters - 1) / iters) == 0.5**done


def run_scheduler(recipe: Recipe, steps: int, iters_per_epoch: int) -> list[float]:
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=recipe.scaled_lr)
    scheduler = build_lr_scheduler(optimizer, recipe, iters_per_epoch)
    used = []
    for _ in range(steps):
        used.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return used


@pytest.mark.parametrize("schedule", list(SCHEDULES))
def test_every_iteration_has_the_lr_of_its_position(schedule: str) -> None:
    recipe = Recipe(schedule=schedule, batch_size=128, **SHORT)
    used = run_scheduler(recipe, 70, 7)
    expected = [0.013 * lr_factor(recipe, i / 7) for i in range(70)]
    assert used == pytest.approx(expected, rel=1e-12)
    assert run_scheduler(recipe, 23, 7) == used[:23]  # a short run is the prefix of the full one


@pytest.mark.parametrize("stop", [0, 5, 14, 33])
def test_resumes_from_its_state_and_from_a_position(stop: int, tmp_path) -> None:
    recipe = Recipe(**SHORT)
    through = run_scheduler(recipe, 60, 7)
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=recipe.scaled_lr)
    scheduler = build_lr_scheduler(optimizer, recipe, 7)
    for _ in range(stop):
        optimizer.step()
        scheduler.step()
    state = {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
    torch.save(state, tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)

    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=recipe.scaled_lr)
    scheduler = build_lr_scheduler(optimizer, recipe, 7)
    optimizer.load_state_dict(state["optimizer"])
    scheduler.load_state_dict(state["scheduler"])
    rest = []
    for _ in range(stop, 60):
        rest.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rest == through[stop:]

    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=recipe.scaled_lr)
    build_lr_scheduler(optimizer, recipe, 7, last_iter=stop - 1)
    assert optimizer.param_groups[0]["lr"] == through[stop]


def test_groups_keep_their_own_peak() -> None:
    params = [{"params": [nn.Parameter(torch.ones(1))], "lr": lr} for lr in (0.1, 0.2)]
    optimizer = torch.optim.SGD(params, lr=0.5)
    build_lr_scheduler(optimizer, Recipe(), 10)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.01, 0.02])


def test_warmup_iters() -> None:
    for warmup, iters in ((5.0, 10), (0.0, 10), (0.25, 10), (0.3, 10)):
        recipe = Recipe(schedule="constant", warmup_epochs=warmup)
        below = sum(lr_factor(recipe, i / iters) < 1.0 for i in range(iters * 6))
        assert warmup_iters(recipe, iters) == below


@pytest.mark.parametrize(("warmup", "is_all"), [(0.0, False), (1.0, False), (2.0, True)])
def test_the_table_says_that_a_warmup_takes_the_whole_training(warmup: float, is_all: bool) -> None:
    recipe = Recipe(epochs=2.0, warmup_epochs=warmup, batch_size=8, reference_batch=8)
    row = dict(lr_table(recipe, 1, 10, 80))["lr warm-up"]
    assert ("the whole training, so that lr only rises" in row) == is_all


def test_the_table_has_the_derived_numbers() -> None:
    recipe = Recipe(batch_size=64, epochs=3, warmup_epochs=1, ema_decay=0.99)
    rows = dict(lr_table(recipe, world_size=2, iters_per_epoch=20, dataset_size=1290))
    assert rows["training images"] == "1,290"
    assert rows["batch"] == "64 = 32 x 2 process(es)"
    assert rows["lr in the recipe"] == "0.026 per 256 images"
    assert rows["peak lr"] == "0.0065 = 0.026 x 64 / 256"
    assert rows["lr at the first step"] == "0.00065"
    assert rows["lr warm-up"] == "1 epoch = 20 steps"
    assert rows["steps"] == "60 (3 epochs)"
    assert rows["lr at the last step"] == f"{0.0065 * 0.9875:.4g}"
    assert rows["EMA decay"].startswith("0.99 (averages over ~100 steps)")
    off = dict(lr_table(Recipe(ema=False), 1, 20, 1290))
    assert off["EMA decay"] == "off"


@pytest.mark.parametrize(
    ("epochs", "iters", "steps", "text"),
    [
        (3.0, 20, 60, "60 (3 epochs)"),
        (10 / 22, 22, 10, "10 (0.454545 epochs)"),
        (0.2, 1, 1, "1 (0.2 epochs = 0.2 steps, rounded)"),
        (1.75, 1, 2, "2 (1.75 epochs = 1.75 steps, rounded)"),
        (0.5, 7, 4, "4 (0.5 epochs = 3.5 steps, rounded)"),
        (1e-9, 1000, 1, "1 (1e-09 epochs = 1e-06 steps, rounded)"),
    ],
)
def test_the_plan_says_how_many_steps_are_trained(
    epochs: float, iters: int, steps: int, text: str
) -> None:
    recipe = Recipe(epochs=epochs, warmup_epochs=0.0)
    assert num_steps(epochs, iters) == steps
    assert dict(lr_table(recipe, 1, iters, 100))["steps"] == text


@pytest.mark.parametrize("per_epoch", [1, 3, 7, 22, 1000, 7382, 80073])
def test_a_length_in_iterations_is_kept(per_epoch: int) -> None:
    for steps in [*range(1, 200), 270_000, 10**7 + 1]:
        assert num_steps(steps / per_epoch, per_epoch) == steps
