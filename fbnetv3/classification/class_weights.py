"""Weights of the classes in the loss, from the config and the numbers of images per class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fbnetv3.classification.losses import WEIGHTED
from fbnetv3.config import ConfigError
from fbnetv3.recipe import Recipe


def class_weights(recipe: Recipe, counts: Sequence[int]) -> Tensor | None:
    """Returns the weight of each class in the loss; None if the recipe sets no weights.

    The weights of ``class_balance`` p are ``n_c ** -p``, scaled so that their mean over the
    training images is 1; p = 1 is scikit-learn's ``balanced``. They are multiplied by
    ``class_weights``.

    Args:
        recipe: Recipe with ``class_weights`` and ``class_balance``.
        counts: Number of training images n_c of each class; 0 is treated as 1.

    Raises:
        ConfigError: SOLVER.CLASS_WEIGHTS does not have one number for each class, or the loss takes
            no weights.
    """
    given, power = recipe.class_weights, recipe.class_balance
    if given and len(given) != len(counts):
        raise ConfigError(
            f"SOLVER.CLASS_WEIGHTS has {len(given)} numbers, but the data has {len(counts)} "
            "classes; give one number for each class, in their order, or []"
        )
    if not given and not power:
        return None
    if recipe.loss not in WEIGHTED:
        raise ConfigError(
            f"SOLVER.LOSS {recipe.loss} has no weights of classes; allowed with CLASS_WEIGHTS and "
            f"CLASS_BALANCE: {', '.join(WEIGHTED)}"
        )
    images = torch.tensor(list(counts), dtype=torch.float64)
    weights = images.clamp(min=1) ** -power
    weights *= images.sum().clamp(min=1) / (weights * images).sum().clamp(min=1e-300)
    if given:
        weights *= torch.tensor(given, dtype=torch.float64)
    return weights.float()
