"""The learning rate as a function of the position in training, and its torch scheduler."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from fbnetv3.recipe import Recipe
from fbnetv3.registries import SCHEDULES

# 2.3 - 0.3 is 1.9999999999999998 in floating point, and must count as 2 whole epochs
_ROUNDING = 1e-9


@SCHEDULES.register("exponential")
def _exponential(recipe: Recipe, since_warmup: float) -> float:
    return recipe.decay ** math.floor(since_warmup + _ROUNDING)


@SCHEDULES.register("cosine")
def _cosine(recipe: Recipe, since_warmup: float) -> float:
    length = recipe.epochs - recipe.warmup_epochs
    progress = min(since_warmup / length, 1.0) if length > 0 else 1.0
    return 0.5 * (1.0 + math.cos(math.pi * progress))


@SCHEDULES.register("constant")
def _constant(recipe: Recipe, since_warmup: float) -> float:
    return 1.0


@SCHEDULES.register("steps")
def _steps(recipe: Recipe, since_warmup: float) -> float:
    epoch = since_warmup + recipe.warmup_epochs
    return recipe.decay ** sum(step <= epoch + _ROUNDING for step in recipe.steps)


def lr_factor(recipe: Recipe, epoch: float) -> float:
    """Returns the learning rate at a position in training, as a share of the peak.

    A linear warm-up from ``warmup_factor`` to 1 is followed by the recipe's schedule, which is a
    registered function or one of these:

    - ``exponential``: times ``decay`` at each whole epoch after the warm-up (paper, A.3: ``decay``
      0.9875, warm-up of 5 epochs)
    - ``cosine``: half a period of a cosine, from 1 after the warm-up to 0 at ``recipe.epochs``
    - ``constant``: 1
    - ``steps``: times ``decay`` at each epoch of ``recipe.steps``

    A run that is stopped early has the learning rates of the first part of the full run.

    Args:
        recipe: Recipe with schedule, decay, warm-up and length.
        epoch: Epochs done so far, ``iteration / iters_per_epoch``; may be fractional; >= 0.

    Returns:
        A factor; in [0, 1] for the built-in schedules.
    """
    if epoch < recipe.warmup_epochs:
        share = epoch / recipe.warmup_epochs
        return recipe.warmup_factor + (1.0 - recipe.warmup_factor) * share
    return float(SCHEDULES.get(recipe.schedule)(recipe, epoch - recipe.warmup_epochs))


def build_lr_scheduler(
    optimizer: Optimizer,
    recipe: Recipe,
    iters_per_epoch: int,
    last_iter: int = -1,
    *,
    offset: int = 0,
) -> LambdaLR:
    """Returns a scheduler that sets ``lr = peak * lr_factor(epoch)``.

    The epoch is ``(iteration - offset) / iters_per_epoch``. This function sets the lr of the next
    iteration; call ``step()`` after each iteration, as detectron2's ``hooks.LRScheduler`` does. The
    scheduler's state consists of plain values.

    Args:
        optimizer: Optimizer. The peak of each group is its ``initial_lr`` or, if it was not
            scheduled before, its ``lr``.
        recipe: Recipe with schedule, decay, warm-up and length.
        iters_per_epoch: Iterations per epoch; >= 1.
        last_iter: Last iteration that was run; -1 if none was.
        offset: Number that is subtracted from an iteration to get its position in the schedule; 0
            unless the run was resumed with another number of iterations per epoch.
    """
    if last_iter >= 0:
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])

    def factor(iteration: int) -> float:
        return lr_factor(recipe, (iteration - offset) / iters_per_epoch)

    return LambdaLR(optimizer, factor, last_epoch=last_iter)


def num_steps(epochs: float, iters_per_epoch: int) -> int:
    """Returns the length of a training in whole steps, at least 1."""
    return max(1, round(epochs * iters_per_epoch))


def lr_table(
    recipe: Recipe, world_size: int, iters_per_epoch: int, dataset_size: int
) -> list[tuple[str, str]]:
    """Returns the steps, learning rates and decays of a recipe, as rows of the training plan.

    Args:
        recipe: Training recipe.
        world_size: Number of processes.
        iters_per_epoch: Steps per epoch.
        dataset_size: Number of training images.

    Returns:
        Rows (name, value) of the training plan.
    """
    per_process, reference = recipe.batch_size / world_size, recipe.reference_batch
    passes = f" x {recipe.accumulate_steps} passes" if recipe.accumulate_steps > 1 else ""
    steps = num_steps(recipe.epochs, iters_per_epoch)
    ema = f"{recipe.ema_decay:g} (averages over ~{1 / (1 - recipe.ema_decay):.0f} steps)"
    ema += ", with warm-up" if recipe.ema_warmup else ""
    rising = warmup_iters(recipe, iters_per_epoch)
    warmup = f"{_epochs(recipe.warmup_epochs)} = {rising} steps"
    if 0 < steps <= rising:
        warmup += (
            ": the whole training, so that lr only rises; lower SOLVER.WARMUP_EPOCHS (or, where "
            "SOLVER.MAX_ITER is the length of a detector's training, SOLVER.WARMUP_ITERS)"
        )
    return [
        ("training images", f"{dataset_size:,}"),
        ("steps per epoch", f"{iters_per_epoch:,}"),
        ("steps", f"{steps:,} ({_length_text(recipe.epochs, iters_per_epoch)})"),
        ("optimizer", recipe.optimizer),
        ("lr in the recipe", f"{recipe.lr:g} per {recipe.reference_batch} images"),
        ("batch", f"{recipe.step_batch} = {per_process:g} x {world_size} process(es){passes}"),
        ("peak lr", f"{recipe.scaled_lr:g} = {recipe.lr:g} x {recipe.step_batch} / {reference}"),
        ("lr at the first step", f"{recipe.scaled_lr * lr_factor(recipe, 0.0):g}"),
        ("lr warm-up", warmup),
        ("lr schedule", _schedule_text(recipe)),
        ("lr at the last step", f"{_last_lr(recipe, steps, iters_per_epoch):.4g}"),
        ("EMA decay", ema if recipe.ema else "off"),
    ]


def _epochs(count: float) -> str:
    return f"{count:g} epoch" + "s" * (count != 1)


def _length_text(epochs: float, iters_per_epoch: int) -> str:
    """Returns a length in epochs, with its exact number of steps if that is not whole."""
    exact, steps = epochs * iters_per_epoch, num_steps(epochs, iters_per_epoch)
    rounded = f" = {exact:.4g} steps, rounded" if abs(exact - steps) > 1e-6 * steps else ""
    return f"{_epochs(epochs)}{rounded}"


def warmup_iters(recipe: Recipe, iters_per_epoch: int) -> int:
    """Returns the number of iterations of the warm-up."""
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
