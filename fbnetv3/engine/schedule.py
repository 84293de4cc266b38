"""Learning rate as a pure function of the position in training, and its torch scheduler."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from fbnetv3.recipe import Recipe

# 2.3 - 0.3 is 1.9999999999999998: a whole number of epochs must not fall into the one before
_ROUNDING = 1e-9


def _exponential(recipe: Recipe, since_warmup: float) -> float:
    return recipe.decay ** math.floor(since_warmup + _ROUNDING)


def _cosine(recipe: Recipe, since_warmup: float) -> float:
    length = recipe.epochs - recipe.warmup_epochs
    progress = min(since_warmup / length, 1.0) if length > 0 else 1.0
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def _constant(recipe: Recipe, since_warmup: float) -> float:
    return 1.0


def _steps(recipe: Recipe, since_warmup: float) -> float:
    epoch = since_warmup + recipe.warmup_epochs
    return recipe.decay ** sum(step <= epoch + _ROUNDING for step in recipe.steps)


_SCHEDULES: dict[str, Callable[[Recipe, float], float]] = {
    "exponential": _exponential,
    "cosine": _cosine,
    "constant": _constant,
    "steps": _steps,
}


def lr_factor(recipe: Recipe, epoch: float) -> float:
    """Returns the share of the peak learning rate at a position in training.

    A linear warm-up from ``warmup_factor`` to 1 is followed by the recipe's schedule: x ``decay``
    at each whole epoch after the warm-up (paper, A.3: 0.9875 after 5 epochs), cosine to 0 at
    ``recipe.epochs``, constant, or x ``decay`` at each of ``steps``. It depends on nothing else,
    so that a run that is stopped early is the beginning of the full one.

    Args:
        recipe: schedule, decay, warm-up and length.
        epoch: epochs done so far, fractional: ``iteration / iters_per_epoch``; >= 0.

    Returns:
        A factor in [0, 1].
    """
    if epoch < recipe.warmup_epochs:
        share = epoch / recipe.warmup_epochs
        return recipe.warmup_factor + (1.0 - recipe.warmup_factor) * share
    return _SCHEDULES[recipe.schedule](recipe, epoch - recipe.warmup_epochs)


def build_lr_scheduler(
    optimizer: Optimizer, recipe: Recipe, iters_per_epoch: int, last_iter: int = -1
) -> LambdaLR:
    """Returns a scheduler that gives iteration i the lr ``peak * lr_factor(i / iters_per_epoch)``.

    Call ``step()`` after each iteration (detectron2's ``hooks.LRScheduler`` does): the lr of
    iteration 0 is set here. Its state is plain numbers.

    Args:
        optimizer: its groups' lr are the peak (``initial_lr`` if they have been scheduled before).
        recipe: see :func:`lr_factor`.
        iters_per_epoch: >= 1.
        last_iter: the last iteration that is done already; -1 for none.
    """
    if last_iter >= 0:
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])

    def factor(iteration: int) -> float:
        return lr_factor(recipe, iteration / iters_per_epoch)

    return LambdaLR(optimizer, factor, last_epoch=last_iter)


def lr_table(
    recipe: Recipe, world_size: int, iters_per_epoch: int, dataset_size: int
) -> list[tuple[str, str]]:
    """Returns the numbers that follow from a recipe on this data and these processes.

    Args:
        recipe: the recipe.
        world_size: processes.
        iters_per_epoch: steps per epoch.
        dataset_size: images per epoch.

    Returns:
        Rows (what, value), to be printed at the start of training.
    """
    per_process, reference = recipe.batch_size / world_size, recipe.reference_batch
    steps = round(recipe.epochs * iters_per_epoch)
    ema = f"{recipe.ema_decay:g} (averages over ~{1 / (1 - recipe.ema_decay):.0f} steps)"
    ema += ", with warm-up" if recipe.ema_warmup else ""
    warmup = f"{recipe.warmup_epochs:g} epochs = {warmup_iters(recipe, iters_per_epoch)} steps"
    return [
        ("images", f"{dataset_size:,}"),
        ("steps per epoch", f"{iters_per_epoch:,}"),
        ("steps", f"{steps:,} ({recipe.epochs:g} epochs)"),
        ("optimizer", recipe.optimizer),
        ("lr in the recipe", f"{recipe.lr:g} per {recipe.reference_batch} images"),
        ("batch", f"{recipe.batch_size} = {per_process:g} x {world_size} process(es)"),
        ("peak lr", f"{recipe.scaled_lr:g} = {recipe.lr:g} x {recipe.batch_size} / {reference}"),
        ("lr at the first step", f"{recipe.scaled_lr * lr_factor(recipe, 0.0):g}"),
        ("lr warm-up", warmup),
        ("lr schedule", _schedule_text(recipe)),
        ("lr at the last step", f"{_last_lr(recipe, steps, iters_per_epoch):.4g}"),
        ("EMA decay", ema if recipe.ema else "off"),
    ]


def warmup_iters(recipe: Recipe, iters_per_epoch: int) -> int:
    """Returns how many iterations run below the peak learning rate because of the warm-up."""
    return math.ceil(recipe.warmup_epochs * iters_per_epoch - _ROUNDING)


def _schedule_text(recipe: Recipe) -> str:
    steps = ", ".join(f"{step:.4g}" for step in recipe.steps)
    texts = {
        "exponential": f"x {recipe.decay:g} per epoch",
        "cosine": "cosine to 0",
        "steps": f"x {recipe.decay:g} at epochs {steps}",
    }
    return texts.get(recipe.schedule, recipe.schedule)


def _last_lr(recipe: Recipe, steps: int, iters_per_epoch: int) -> float:
    return recipe.scaled_lr * lr_factor(recipe, max(steps - 1, 0) / iters_per_epoch)
