"""The architecture encoder and its pre-training on statistics (paper, 3.1, step 1)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fbnetv3.search.predictors.networks import Floats, Linear, minibatches
from fbnetv3.search.space.constraints import Columns
from fbnetv3.search.space.encoding import Features

EMBEDDING = 24
"""Width of the embedding (paper, A.2)."""
_EPOCHS, _BATCH, _RATE = 40, 256, 5e-3


@dataclass
class Pretrained:
    """An encoder that has learned statistics, or none where there is nothing to learn.

    Attributes:
        columns: feature columns of the architecture.
        weight, bias: of the encoder, (1, columns, 24) and (1, 1, 24); None: not pre-trained.
        correlation: of prediction and truth on the 20% held out, by statistic.
        held_out: by statistic, (truth, prediction) of up to 500 held out, standardised.
    """

    columns: list[int]
    weight: Tensor | None = None
    bias: Tensor | None = None
    correlation: dict[str, float] = field(default_factory=dict)
    held_out: dict[str, tuple[list[float], list[float]]] = field(default_factory=dict)


def pretrain(features: Features, statistics: Columns, columns: list[int], seed: int) -> Pretrained:
    """Trains encoder and proxy head to predict statistics, on 80% of the pool.

    Args:
        features: (candidates, width).
        statistics: {name: (candidates,)}; those that do not vary are left out. Positive ones
            are learned in the logarithm.
        columns: feature columns of the architecture.
        seed: of the split, the weights and the order.
    """
    names, targets = _targets(statistics)
    if not columns or not names or len(features) < 10:
        return Pretrained(columns)
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.from_numpy(features[:, columns]), torch.from_numpy(targets)
    order = torch.randperm(len(x), generator=generator)
    cut = int(0.8 * len(x))
    train, test = order[:cut], order[cut:]
    encoder = Linear(1, x.shape[1], EMBEDDING, generator)
    head = Linear(1, EMBEDDING, len(names), generator)
    _train(encoder, head, x[train], y[train], generator)
    with torch.no_grad():
        predicted = head(F.relu(encoder(x[None, test])))[0].numpy()
    truth = y[test].numpy()
    pairs = {n: (truth[:, i], predicted[:, i]) for i, n in enumerate(names)}
    return Pretrained(
        columns,
        encoder.weight.detach(),
        encoder.bias.detach(),
        {n: float(np.corrcoef(*pair)[0, 1]) for n, pair in pairs.items()},
        {n: (pair[0][:500].tolist(), pair[1][:500].tolist()) for n, pair in pairs.items()},
    )


def _targets(statistics: Columns) -> tuple[list[str], Features]:
    names, columns = [], []
    for name, values in statistics.items():
        logs: Floats = np.log(values) if len(values) and values.min() > 0 else values
        if len(values) > 1 and logs.std() > 1e-9 * max(1.0, abs(float(logs.mean()))):
            names.append(name)
            columns.append((logs - logs.mean()) / logs.std())
    stacked = np.stack(columns, 1) if columns else np.zeros((0, 0))
    return names, stacked.astype(np.float32)


def _train(encoder: Linear, head: Linear, x: Tensor, y: Tensor, generator: torch.Generator) -> None:
    tensors = [*encoder.tensors, *head.tensors]
    optimizer = torch.optim.AdamW(tensors, lr=_RATE, weight_decay=1e-5, fused=True)
    steps = _EPOCHS * -(-len(x) // _BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(_EPOCHS):
        for index in minibatches(len(x), _BATCH, generator):
            loss = F.huber_loss(head(F.relu(encoder(x[None, index]))), y[None, index])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
