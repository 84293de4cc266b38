"""Predictors of a candidate's score from its features, by name.

``default`` is an ensemble of small networks and a Gaussian process (``default.py``), which can be
sampled for Thompson sampling. ``paper`` is the paper's network (``paper.py``). ``random`` predicts
random scores: the baseline that a search has to beat. Each round fits a new predictor to all labels
so far.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from fbnetv3.errors import did_you_mean
from fbnetv3.search.errors import SearchError
from fbnetv3.search.predictors.default import DefaultPredictor
from fbnetv3.search.predictors.encoder import Pretrained
from fbnetv3.search.predictors.networks import Floats
from fbnetv3.search.predictors.paper import PaperPredictor
from fbnetv3.search.space.encoding import Features


class Predictor(Protocol):
    """A fitted predictor. Its predictions have the unit of the labels it was fitted to."""

    def predict(self, features: Features) -> Floats:
        """Returns the predicted scores, (m,), of candidates with features (m, width)."""

    def cross_validated(self) -> Floats:
        """Returns a prediction of each label it was fitted to, made without that label, (n,)."""


Fit = Callable[[Features, Floats, Pretrained, int], Predictor]
"""Fits a predictor to features (n, width) and labels (n,), with an encoder and a random seed."""


class RandomPredictor:
    """Uniform random scores in [0, 1); with them, stage 1 is a random search.

    Args:
        features: Not used.
        labels: (n,) labels; only their number is used, so that every round has other scores.
        pretrained: Not used.
        seed: Random seed of the scores.
    """

    def __init__(
        self, features: Features, labels: Floats, pretrained: Pretrained, seed: int
    ) -> None:
        self._count, self._seed = len(labels), seed

    def predict(self, features: Features) -> Floats:
        """Returns random scores, (m,)."""
        return np.random.default_rng([self._seed, self._count, 42]).random(len(features))

    def cross_validated(self) -> Floats:
        """Returns random scores, (n,)."""
        return np.random.default_rng([self._seed, self._count, 43]).random(self._count)


_PREDICTORS: dict[str, Fit] = {
    "default": DefaultPredictor,
    "paper": PaperPredictor,
    "random": RandomPredictor,
}


def fit_function(name: str) -> Fit:
    """Returns the function that fits a predictor.

    Args:
        name: Name of the predictor: ``default``, ``paper`` or ``random``.

    Raises:
        SearchError: The name is unknown.
    """
    if name not in _PREDICTORS:
        hint = did_you_mean(name, _PREDICTORS)
        raise SearchError(f"predictor {name!r} is unknown; allowed: {', '.join(_PREDICTORS)}{hint}")
    return _PREDICTORS[name]
