"""Predictors: from features to a score. Each is fitted anew on all labels of a round.

``paper`` is the paper's network (Fig. 4); ``default`` is an ensemble of small networks and a
Gaussian process, which also draws whole functions for Thompson sampling (see ``default.py``);
``random`` learns nothing: the baseline that a search must beat.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fbnetv3.errors import did_you_mean
from fbnetv3.search.errors import SearchError
from fbnetv3.search.predictors.encoder import EMBEDDING, Pretrained
from fbnetv3.search.predictors.networks import Floats, Linear, minibatches, standardised
from fbnetv3.search.space.encoding import Features


class Predictor(Protocol):
    """What the search asks of a predictor. Scores are in the labels' units."""

    def predict(self, features: Features) -> Floats:
        """Returns the predicted score of each candidate."""

    def cross_validated(self) -> Floats:
        """Returns, for each training candidate, a prediction made without its label."""

    def tensors(self) -> dict[str, Tensor]:
        """Returns what has been learned, as tensors only."""


Fit = Callable[[Features, Floats, Pretrained, int], Predictor]
_HIDDEN, _BATCH = 32, 16
_FROZEN_EPOCHS, _ALL_EPOCHS = 50, 50
_RATE, _REDUCED = 1e-2, 1e-3
_FOLDS = 5


class PaperPredictor:
    """Encoder, then one hidden layer that also reads the recipe (paper, Fig. 4, 3.1 and A.2).

    50 epochs with the encoder frozen, 50 with all parameters at a reduced lr, Huber loss on
    standardised labels. Without pre-training the encoder is trained from the start.

    Args:
        features: (n, width).
        labels: (n,).
        pretrained: the encoder.
        seed: of weights and order.
    """

    def __init__(
        self, features: Features, labels: Floats, pretrained: Pretrained, seed: int
    ) -> None:
        self._features, self._labels = features, labels
        self._pretrained, self._seed = pretrained, seed
        self._arch = pretrained.columns
        rest = set(range(features.shape[1])) - set(self._arch)
        self._recipe = sorted(rest)
        generator = torch.Generator().manual_seed(seed)
        self._encoder = Linear(1, len(self._arch), EMBEDDING, generator)
        if pretrained.weight is not None and pretrained.bias is not None:
            self._encoder.set(pretrained.weight, pretrained.bias)
        width = (EMBEDDING if self._arch else 0) + len(self._recipe)
        self._hidden = Linear(1, width, _HIDDEN, generator)
        self._out = Linear(1, _HIDDEN, 1, generator)
        target, self._mean, self._scale = standardised(labels)
        self._train(
            torch.from_numpy(features), torch.from_numpy(target.astype(np.float32)), generator
        )

    def _train(self, x: Tensor, y: Tensor, generator: torch.Generator) -> None:
        heads = [*self._hidden.tensors, *self._out.tensors]
        everything = [*heads, *self._encoder.tensors] if self._arch else heads
        first = heads if self._pretrained.weight is not None else everything
        for epochs, tensors, rate in (
            (_FROZEN_EPOCHS, first, _RATE),
            (_ALL_EPOCHS, everything, _REDUCED),
        ):
            optimizer = torch.optim.AdamW(tensors, lr=rate, weight_decay=1e-4, fused=True)
            for _ in range(epochs):
                for index in minibatches(len(x), _BATCH, generator):
                    loss = F.huber_loss(self._forward(x[index]), y[index])
                    for tensor in everything:
                        tensor.grad = None
                    loss.backward()
                    optimizer.step()

    def _forward(self, x: Tensor) -> Tensor:
        parts = [x[:, self._recipe][None]]
        if self._arch:
            parts.insert(0, F.relu(self._encoder(x[:, self._arch][None])))
        return self._out(F.relu(self._hidden(torch.cat(parts, 2))))[0, :, 0]

    def predict(self, features: Features) -> Floats:
        with torch.no_grad():
            found = self._forward(torch.from_numpy(features)).double().numpy()
        return np.asarray(found * self._scale + self._mean)

    def cross_validated(self) -> Floats:
        folds = min(_FOLDS, len(self._labels))
        fold = np.random.default_rng([self._seed, 41]).permutation(len(self._labels)) % folds
        found = np.full(len(self._labels), np.nan)
        for i in range(folds):
            rest = PaperPredictor(
                self._features[fold != i], self._labels[fold != i], self._pretrained, self._seed
            )
            found[fold == i] = rest.predict(self._features[fold == i])
        return found

    def tensors(self) -> dict[str, Tensor]:
        named: dict[str, Any] = {"encoder": self._encoder, "hidden": self._hidden, "out": self._out}
        found = {}
        for name, layer in named.items():
            found[f"{name}.weight"] = layer.weight.detach()[0]
            found[f"{name}.bias"] = layer.bias.detach()[0, 0]
        found["label"] = torch.tensor([self._mean, self._scale], dtype=torch.float64)
        return found


class RandomPredictor:
    """Scores at random: stage 1 becomes a random search, as many candidates from each bin.

    Args:
        features, pretrained: not used.
        labels: (n,); how many there are tells the draws of different rounds apart.
        seed: of the draws.
    """

    def __init__(
        self, features: Features, labels: Floats, pretrained: Pretrained, seed: int
    ) -> None:
        self._count, self._seed = len(labels), seed

    def predict(self, features: Features) -> Floats:
        return np.random.default_rng([self._seed, self._count, 42]).random(len(features))

    def cross_validated(self) -> Floats:
        return np.random.default_rng([self._seed, self._count, 43]).random(self._count)

    def tensors(self) -> dict[str, Tensor]:
        return {}


def fit_function(name: str) -> Fit:
    """Returns how the named predictor is fitted: ``default``, ``paper`` or ``random``.

    Raises:
        SearchError: there is no such predictor.
    """
    from fbnetv3.search.predictors.default import DefaultPredictor

    known: dict[str, Fit] = {
        "default": DefaultPredictor,
        "paper": PaperPredictor,
        "random": RandomPredictor,
    }
    if name not in known:
        raise SearchError(
            f"predictor {name!r} is unknown; allowed: {', '.join(known)}{did_you_mean(name, known)}"
        )
    return known[name]
