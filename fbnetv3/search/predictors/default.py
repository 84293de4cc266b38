"""The default predictor: an ensemble of small networks and a Gaussian process.

Both models learn the normal scores of the labels (the quantiles of the normal distribution at their
ranks), which outliers do not distort. Their predictions are averaged, because two families of
models err differently. Thompson sampling uses functions sampled from both models. Expected
improvement uses a second Gaussian process (GP), which learns the labels themselves, or warped
labels, because normal scores flatten the peaks of the labels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fbnetv3.search.predictors.encoder import Pretrained
from fbnetv3.search.predictors.ensemble import Ensemble, EnsembleSamples
from fbnetv3.search.predictors.hyperparameters import fit_gp
from fbnetv3.search.predictors.networks import Floats, standardise
from fbnetv3.search.predictors.normal_scores import NormalScores
from fbnetv3.search.predictors.pathwise import PathwiseSamples, draw_matheron_paths
from fbnetv3.search.predictors.warping import fit_warped_gp
from fbnetv3.search.space.encoding import Features

_SUBSET_STREAM = 31  # separates the random streams of one seed
MAX_POINTS = 512
"""Largest number of labels that the GPs are fitted to."""


class DefaultPredictor:
    """Mean of an ensemble and a Gaussian process, weighted inversely to their squared errors.

    The ensemble learns from all labels, the GPs from at most MAX_POINTS labels.

    Args:
        features: (n, width) features in [0, 1].
        labels: (n,) labels; higher is better.
        pretrained: Encoder of the architecture.
        seed: Random seed of the ensemble and of the selection of labels for the GPs.
        errors: (n,) standard deviation of each label's error, in the unit of the labels; None: 0.

    Attributes:
        ensemble: Ensemble that has learned the normal scores of the labels.
        gp: GP of the labels, warped if that fits better (``warping.py``), then standardised; for
            expected improvement.
    """

    def __init__(
        self,
        features: Features,
        labels: Floats,
        pretrained: Pretrained,
        seed: int,
        errors: Floats | None = None,
    ) -> None:
        self._features, self._normal_scores = features, NormalScores(labels)
        y = self._normal_scores.scores
        # Approximate errors of the normal scores, as if these were the standardised labels
        shares = None if errors is None else errors / standardise(labels)[2]
        self.ensemble = Ensemble(features, y, pretrained, seed, shares)
        self._selected = rows = select_training_points(labels, seed)
        X = features[rows].astype(np.float64)
        self._score_gp = fit_gp(X, y[rows], errors=None if shares is None else shares[rows])
        self._ensemble_weight = self._weigh_ensemble(y)
        selected_errors = None if errors is None else errors[rows]
        self.gp = fit_warped_gp(X, labels[rows], self._score_gp.theta, selected_errors)

    def _weigh_ensemble(self, y: Floats) -> float:
        """Returns the ensemble's weight, in [0, 1], from both models' errors on unseen labels."""
        out_of_bag = self.ensemble.out_of_bag(self._features)
        is_known = ~np.isnan(out_of_bag)
        gp_error = np.square(self._score_gp.leave_one_out() - y[self._selected]).mean()
        ensemble_error = np.square((out_of_bag - y)[is_known]).mean()
        total = gp_error + ensemble_error
        return float(gp_error / total) if is_known.any() and total > 0 else 0.5

    def predict(self, features: Features) -> Floats:
        """Returns predicted labels, (m,), at features (m, width)."""
        ensemble = self.ensemble.members(features).mean(0)
        gp = self._score_gp.mean(features)
        return self._normal_scores.to_labels(self._average(ensemble, gp))

    def _average(self, ensemble: Floats, gp: Floats) -> Floats:
        return self._ensemble_weight * ensemble + (1 - self._ensemble_weight) * gp

    def cross_validated(self) -> Floats:
        """Returns a cross-validated prediction of each label, (n,).

        It is the weighted mean of the ensemble's out-of-bag prediction and the GP's leave-one-out
        prediction. The GP's hyperparameters were fitted to all its labels, including the one that
        is left out. If only one of the two predictions exists, it is used alone; if neither does,
        the prediction is a value in the middle of the labels.
        """
        scores = self.ensemble.out_of_bag(self._features)
        out_of_bag = scores[self._selected]
        left_out = self._score_gp.leave_one_out()
        average = self._average(out_of_bag, left_out)
        scores[self._selected] = np.where(np.isnan(out_of_bag), left_out, average)
        return self._normal_scores.to_labels(np.nan_to_num(scores))

    def sample(self, count: int, random: np.random.Generator) -> CombinedSamples:
        """Samples functions from both models, in numbers proportional to the models' weights.

        The values of the functions are normal scores.

        Args:
            count: Number of functions.
            random: Source of all random numbers.
        """
        gp_count = round(count * (1 - self._ensemble_weight))
        ensemble_count = count - gp_count
        ensemble = self.ensemble.sample(ensemble_count, random)
        gp = draw_matheron_paths(self._score_gp, gp_count, random)
        return CombinedSamples(ensemble, gp, ensemble_count)


class CombinedSamples:
    """Functions sampled from an ensemble, followed by functions sampled from a GP.

    Args:
        ensemble: Functions sampled from the ensemble.
        gp: Functions sampled from the GP.
        split: Number of functions in ``ensemble``.
    """

    def __init__(self, ensemble: EnsembleSamples, gp: PathwiseSamples, split: int) -> None:
        self._ensemble, self._gp, self._split = ensemble, gp, split

    def __call__(self, x: Features) -> Floats:
        """Returns the values of all functions, (m, count), at features (m, width)."""
        return np.concatenate([self._ensemble(x), self._gp(x)], 1)

    def evaluate_each(self, x: Features, functions: npt.NDArray[np.int64]) -> Floats:
        """Returns the value of one function at each candidate, (m,).

        Args:
            x: (m, width) features.
            functions: (m,) index of the function to evaluate at each candidate.
        """
        values = np.empty(len(x))
        mask = functions < self._split
        values[mask] = self._ensemble.evaluate_each(x[mask], functions[mask])
        gp_functions = functions[~mask] - self._split
        values[~mask] = self._gp.evaluate_each(x[~mask], gp_functions)
        return values


def select_training_points(labels: Floats, seed: int) -> npt.NDArray[np.int64]:
    """Returns the ascending indices of the labels that the GPs are fitted to.

    Args:
        labels: (n,) labels; higher is better.
        seed: Random seed of the selection.

    Returns:
        All indices if there are at most MAX_POINTS labels. Otherwise the indices of the
        MAX_POINTS / 2 best labels and of as many other labels, drawn at random.
    """
    if len(labels) <= MAX_POINTS:
        return np.arange(len(labels))
    order = np.argsort(-labels, kind="stable")
    half = MAX_POINTS // 2
    others = np.random.default_rng([seed, _SUBSET_STREAM]).permutation(order[half:])
    return np.sort(np.concatenate([order[:half], others[: MAX_POINTS - half]]))
