"""Predictors of a candidate's score from its features, by name.

``default`` is an ensemble of small networks and a Gaussian process (``default.py``). ``paper`` is
the paper's network (``paper.py``). ``random`` predicts random scores: the baseline that a search
has to beat. A search fits a new predictor after each finished batch, to all scores so far.

To add a predictor:

1. In a file of this folder, write a class with the methods of :class:`Predictor`. It is fitted by
   its constructor, with the arguments of :class:`Fit`: the encoded candidates, with values in
   [0, 1] (``space/encoding.py``), and their scores, of which the highest is the best. The arguments
   ``pretrained`` and ``errors`` must be accepted, even by a predictor without use for the
   pre-trained encoder or for estimated scores. Two fits with equal arguments must be equal.
2. Add the class to ``PREDICTORS`` below, and its name to ``PROBABILISTIC`` if it has ``gp`` and
   ``sample``. The name is then a value of SEARCH.PREDICTOR, and
   ``tests/search/predictors/test_predictor.py`` tests it. Add to ``_LEAST`` there the rank
   correlation with unseen labels that it has to exceed, and its name to ``_DETERMINISTIC`` if it
   does not depend on the seed.
3. Add the name to the help of SEARCH.PREDICTOR (``search/fbnet/keys.py``), to
   ``SearchSettings.predictor`` (``search/settings.py``), and to the table in ``docs/search.md``
   ("The search exactly as published").

For a predictor with ``gp`` and ``sample`` (the protocol ``Probabilistic`` in
``acquisition/batch.py``), batches are chosen by expected improvement and Thompson sampling, the
first batch may be divided into parts, each of which is chosen by the scores of the parts before
it, and a search may have several scores. For any other predictor, batches are chosen by
``paper_batch`` in ``acquisition/coarse.py``.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from fbnetv3.errors import did_you_mean
from fbnetv3.search.errors import SearchError
from fbnetv3.search.predictors.default import DefaultPredictor
from fbnetv3.search.predictors.encoder import Pretrained
from fbnetv3.search.predictors.networks import Floats
from fbnetv3.search.predictors.paper import PaperPredictor
from fbnetv3.search.space.encoding import Features

_PREDICT_STREAM, _VALIDATE_STREAM = 42, 43  # separate the random streams of one seed


class Predictor(Protocol):
    """A fitted predictor. Its predictions have the unit of its labels, except for ``random``."""

    def predict(self, features: Features) -> Floats:
        """Returns the predicted scores, (m,), of candidates with features (m, width)."""

    def cross_validated(self) -> Floats:
        """Returns a cross-validated prediction of each training label, (n,).

        The prediction of a label does not use this label, except that the hyperparameters of a
        Gaussian process may have been fitted to all labels.
        """


class Fit(Protocol):
    """Fits a predictor."""

    def __call__(
        self,
        features: Features,
        labels: Floats,
        pretrained: Pretrained,
        seed: int,
        errors: Floats | None = None,
        /,
    ) -> Predictor:
        """Returns a predictor fitted to features (n, width) and labels (n,).

        Args:
            features: (n, width) features in [0, 1].
            labels: (n,) labels; higher is better.
            pretrained: Encoder that was trained to predict the statistics of candidates; without
                weights if the search does not pre-train.
            seed: Random seed of the fit.
            errors: (n,) standard deviation of the error of each label that estimates the final
                score from a partial training, and 0 for the labels of whole trainings, in the unit
                of the labels; None: all 0.
        """


class RandomPredictor:
    """Uniform random scores in [0, 1), which make stage 1 a random search.

    Args:
        features: Ignored.
        labels: (n,) labels. Only their number is used, so that scores differ between batches.
        pretrained: Ignored.
        seed: Random seed of the scores.
        errors: Ignored.
    """

    def __init__(
        self,
        features: Features,
        labels: Floats,
        pretrained: Pretrained,
        seed: int,
        errors: Floats | None = None,
    ) -> None:
        self._count, self._seed = len(labels), seed

    def predict(self, features: Features) -> Floats:
        """Returns random scores, (m,)."""
        return np.random.default_rng([self._seed, self._count, _PREDICT_STREAM]).random(
            len(features)
        )

    def cross_validated(self) -> Floats:
        """Returns random scores, (n,)."""
        return np.random.default_rng([self._seed, self._count, _VALIDATE_STREAM]).random(
            self._count
        )


PREDICTORS: dict[str, Fit] = {
    "default": DefaultPredictor,
    "paper": PaperPredictor,
    "random": RandomPredictor,
}
"""Predictors by the value of SEARCH.PREDICTOR."""
PROBABILISTIC = ("default",)
"""Names of the predictors with a posterior: their instances have ``gp`` and ``sample``."""


def fit_function(name: str) -> Fit:
    """Returns the function that fits a predictor.

    Args:
        name: Name of the predictor, a key of ``PREDICTORS``.

    Raises:
        SearchError: The name is unknown.
    """
    if not isinstance(name, str) or name not in PREDICTORS:
        hint = did_you_mean(str(name), PREDICTORS)
        raise SearchError(f"predictor {name!r} is unknown; allowed: {', '.join(PREDICTORS)}{hint}")
    return PREDICTORS[name]
