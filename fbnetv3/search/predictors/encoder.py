"""The architecture encoder and its pre-training on architecture statistics (paper, 3.1, step 1)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fbnetv3.search.predictors.networks import BatchedLinear, Floats, minibatches
from fbnetv3.search.space.constraints import Columns
from fbnetv3.search.space.encoding import Features
from fbnetv3.search.space.scaling import to_unit

EMBEDDING = 24
"""Width of the architecture embedding (paper, A.2)."""
_EPOCHS, _BATCH, _LR = 40, 256, 5e-3  # of the pre-training
_TRAIN_SHARE = 0.8
"""Share of the candidates that the encoder is trained on; the others are held out."""
_MIN_CANDIDATES = 10
"""Smallest number of candidates for which an encoder is trained."""
_HELD_OUT_PAIRS = 500
"""Largest number of held-out candidates whose true and predicted values are kept."""
_MIN_VARIATION = 1e-9
"""A statistic is constant if its standard deviation is at most this share of its largest magnitude.

If the logarithm of a statistic is learned, both numbers are taken from the logarithms, and the
magnitude is at least 1.
"""


@dataclass
class Pretrained:
    """A pre-trained architecture encoder; without pre-training, only its feature columns.

    Attributes:
        columns: Indices of the feature columns that describe the architecture.
        weight: (1, columns, 24) weight of the encoder; None if it is not pre-trained.
        bias: (1, 1, 24) bias of the encoder; None if it is not pre-trained.
        correlation: Pearson correlation of predicted and true values on the held-out 20% of the
            candidates, by name of the statistic; empty without pre-training.
        held_out: Standardised (true, predicted) values of up to 500 held-out candidates, by name of
            the statistic; empty without pre-training.
    """

    columns: list[int]
    weight: Tensor | None = None
    bias: Tensor | None = None
    correlation: dict[str, float] = field(default_factory=dict)
    held_out: dict[str, tuple[list[float], list[float]]] = field(default_factory=dict)


def pretrain(features: Features, statistics: Columns, columns: list[int], seed: int) -> Pretrained:
    """Trains the encoder and a linear head to predict statistics, on 80% of the candidates.

    Args:
        features: (n, width) features of the candidates.
        statistics: (n,) values of each statistic, by name. If all values of a statistic are
            positive, its logarithm is predicted. Statistics without variation are ignored.
        columns: Indices of the feature columns that describe the architecture.
        seed: Random seed of the split, the initial weights and the order of minibatches.

    Returns:
        The pre-trained encoder. It has no weights if there are no columns, no statistics that vary,
        or fewer than 10 candidates.
    """
    names, targets = _targets(statistics)
    if not columns or not names or len(features) < _MIN_CANDIDATES:
        return Pretrained(columns)
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.from_numpy(features[:, columns]), torch.from_numpy(targets)
    order = torch.randperm(len(x), generator=generator)
    cut = int(_TRAIN_SHARE * len(x))
    train, test = order[:cut], order[cut:]
    encoder = BatchedLinear(1, x.shape[1], EMBEDDING, generator)
    head = BatchedLinear(1, EMBEDDING, len(names), generator)
    _train(encoder, head, x[train], y[train], generator)
    with torch.no_grad():
        predicted = head(F.relu(encoder(x[None, test])))[0].numpy()
    truth = y[test].numpy()
    pairs = {name: (truth[:, i], predicted[:, i]) for i, name in enumerate(names)}
    return Pretrained(
        columns,
        encoder.weight.detach(),
        encoder.bias.detach(),
        {name: float(np.corrcoef(*pair)[0, 1]) for name, pair in pairs.items()},
        {
            name: (pair[0][:_HELD_OUT_PAIRS].tolist(), pair[1][:_HELD_OUT_PAIRS].tolist())
            for name, pair in pairs.items()
        },
    )


def _targets(statistics: Columns) -> tuple[list[str], Features]:
    """Returns the names of the statistics that vary, and their standardised values, (n, names)."""
    names, columns = [], []
    for name, values in statistics.items():
        is_positive = len(values) > 0 and values.min() > 0
        target: Floats = np.log(values) if is_positive else to_unit(values)
        tolerance = _MIN_VARIATION * max(float(is_positive), float(np.abs(target).max(initial=0.0)))
        if len(values) > 1 and target.std() > tolerance:
            names.append(name)
            columns.append((target - target.mean()) / target.std())
    stacked = np.stack(columns, 1) if columns else np.zeros((0, 0))
    return names, stacked.astype(np.float32)


def _train(
    encoder: BatchedLinear,
    head: BatchedLinear,
    x: Tensor,
    y: Tensor,
    generator: torch.Generator,
) -> None:
    parameters = [*encoder.parameters, *head.parameters]
    optimizer = torch.optim.AdamW(parameters, lr=_LR, weight_decay=1e-5, fused=True)
    steps = _EPOCHS * -(-len(x) // _BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(_EPOCHS):
        for index in minibatches(len(x), _BATCH, generator):
            loss = F.huber_loss(head(F.relu(encoder(x[None, index]))), y[None, index])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
