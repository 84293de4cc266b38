"""Recipes: checks of values, conversion to and from plain values."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fbnetv3.errors import FBNetError
from fbnetv3.recipe import AUGMENTATIONS, OPTIMIZERS, SCHEDULES, Recipe, RecipeError

recipes = st.builds(
    Recipe,
    optimizer=st.sampled_from(list(OPTIMIZERS)),
    lr=st.floats(1e-6, 10.0),
    batch_size=st.integers(1, 4096),
    epochs=st.floats(5.0, 500.0),
    schedule=st.sampled_from(list(SCHEDULES)),
    warmup_epochs=st.floats(0.0, 5.0),
    ema=st.booleans(),
    ema_decay=st.floats(0.0, 0.99999),
    mixup=st.floats(0.0, 1.0),
    auto_augment=st.sampled_from(AUGMENTATIONS),
)


def test_the_defaults_are_the_papers_imagenet_recipe() -> None:
    recipe = Recipe()
    assert (recipe.optimizer, recipe.lr, recipe.reference_batch) == ("rmsprop", 0.026, 256)
    assert (recipe.epochs, recipe.decay, recipe.warmup_epochs) == (400, 0.9875, 5)
    assert (recipe.ema, recipe.ema_decay) == (True, 0.99985)
    assert (recipe.dropout, recipe.drop_path, recipe.mixup) == (0.17, 0.09, 0.19)
    assert (recipe.weight_decay, recipe.weight_decay_norm) == (7e-6, 0.0)


@given(recipe=recipes)
def test_round_trip_through_json(recipe: Recipe) -> None:
    values = json.loads(json.dumps(recipe.to_dict()))
    assert set(values) == {field.name for field in dataclasses.fields(Recipe)}
    assert Recipe.from_dict(values) == recipe
    assert hash(Recipe.from_dict(values)) == hash(recipe)


def test_missing_keys_get_their_defaults() -> None:
    assert Recipe.from_dict({"lr": 0.5}) == Recipe(lr=0.5)
    assert Recipe.from_dict({}) == Recipe()


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("ema_deacy", "ema_decay"),
        ("LR", "lr"),
        ("warmup_epoch", "warmup_epochs"),
        ("mix_up", "mixup"),
    ],
)
def test_mistyped_keys_name_the_nearest(key: str, nearest: str) -> None:
    with pytest.raises(
        RecipeError, match=rf"no key '{key}'; did you mean .*\b{nearest}\b"
    ) as error:
        Recipe.from_dict({key: 1})
    assert "\n" not in str(error.value)


def test_a_key_unlike_any_other_gets_no_suggestion() -> None:
    with pytest.raises(RecipeError) as error:
        Recipe.from_dict({"qqqqqqqq": 1})
    assert str(error.value) == "recipe has no key 'qqqqqqqq'"


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("lr", 0.0),
        ("lr", -0.1),
        ("lr", float("nan")),
        ("lr", float("inf")),
        ("batch_size", 0),
        ("reference_batch", 0),
        ("epochs", 0.0),
        ("decay", 0.0),
        ("decay", 1.01),
        ("warmup_epochs", -1.0),
        ("warmup_factor", 1.5),
        ("momentum", 1.0),
        ("weight_decay", -1e-9),
        ("weight_decay_norm", -1e-9),
        ("ema_decay", 1.0),
        ("dropout", 1.0),
        ("drop_path", -0.1),
        ("mixup", -0.1),
        ("label_smoothing", 1.0),
        ("clip_grad_norm", -1.0),
    ],
)
def test_values_out_of_range(key: str, wrong: float) -> None:
    with pytest.raises(RecipeError, match=f"recipe {key}=.*out of range; allowed: ") as error:
        Recipe.from_dict({key: wrong})
    assert repr(wrong) in str(error.value)
    assert isinstance(error.value, FBNetError)


@pytest.mark.parametrize(
    ("key", "allowed"),
    [("optimizer", OPTIMIZERS), ("schedule", SCHEDULES), ("auto_augment", AUGMENTATIONS)],
)
def test_choices(key: str, allowed: tuple[str, ...]) -> None:
    for value in allowed:
        assert getattr(Recipe.from_dict({key: value}), key) == value
    with pytest.raises(RecipeError, match=f"{key}='adam'.*allowed: {', '.join(allowed)}"):
        Recipe.from_dict({key: "adam"})


def test_bounds_are_allowed() -> None:
    edges = {"decay": 1.0, "warmup_epochs": 0.0, "momentum": 0.0, "mixup": 0.0, "dropout": 0.0}
    assert Recipe.from_dict(edges).to_dict().items() >= edges.items()


def test_warmup_longer_than_the_training() -> None:
    with pytest.raises(RecipeError, match=r"warmup_epochs=5\.0 is longer than epochs=3"):
        Recipe(epochs=3)
    assert Recipe(epochs=5).warmup_epochs == 5


def test_lr_grows_with_the_batch() -> None:
    assert Recipe(batch_size=1024).scaled_lr == pytest.approx(0.104)
    assert Recipe(batch_size=64).scaled_lr == pytest.approx(0.0065)
    assert Recipe(lr=0.1, reference_batch=128, batch_size=128).scaled_lr == 0.1


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe().lr = 1.0  # type: ignore[misc]
