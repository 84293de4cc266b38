"""The default predictor: an ensemble of small networks beside a Gaussian process.

Both read the same features and learn the normal scores of the labels' ranks, which heavy tails
do not disturb. Two families err differently; each draws functions for Thompson sampling. A second
process learns the labels themselves, whose peaks ranks would flatten, for expected improvement.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import norm, rankdata
from torch import Tensor

from fbnetv3.search.predictors.encoder import Pretrained
from fbnetv3.search.predictors.ensemble import Draws, Ensemble, EnsembleDraws
from fbnetv3.search.predictors.gp import GaussianProcess, PosteriorDraws, subset
from fbnetv3.search.predictors.networks import Floats
from fbnetv3.search.predictors.warp import process_of_labels
from fbnetv3.search.space.encoding import Features


class BothDraws:
    """Functions of the ensemble, then of the process.

    Args:
        ensemble, process: of each.
        count: of the ensemble's.
    """

    def __init__(self, ensemble: EnsembleDraws, process: PosteriorDraws, count: int) -> None:
        self._ensemble, self._process, self._count = ensemble, process, count

    def __call__(self, x: Features) -> Floats:
        return np.concatenate([self._ensemble(x), self._process(x.astype(np.float64))], 1)

    def own(self, x: Features, functions: npt.NDArray[np.int64]) -> Floats:
        found = np.empty(len(x))
        first = functions < self._count
        found[first] = self._ensemble.own(x[first], functions[first])
        wide = x[~first].astype(np.float64)
        found[~first] = self._process.own(wide, functions[~first] - self._count)
        return found


class DefaultPredictor:
    """The mean of ensemble and Gaussian process, each weighted by the inverse of its error.

    Args:
        features: (n, width).
        labels: (n,).
        pretrained: encoder of the architecture.
        seed: of everything random.

    Attributes:
        ensemble: of the networks.
        process: of the labels themselves; predictions are of the ensemble and a process of ranks.
    """

    def __init__(
        self, features: Features, labels: Floats, pretrained: Pretrained, seed: int
    ) -> None:
        ranks = norm.ppf((rankdata(labels) - 0.5) / len(labels))
        self._labels = np.sort(labels)
        self._ranks = np.sort(ranks)
        deviation = ranks.std()
        self._unit = float(deviation) if deviation > 0 else 1.0
        y = ranks / self._unit
        self._features = features
        self.ensemble = Ensemble(features, y, pretrained, seed)
        self._chosen = subset(labels, seed)
        chosen = features[self._chosen].astype(np.float64)
        self._of_ranks = GaussianProcess(chosen, y[self._chosen])
        self._share = self._share_of_ensemble(y)
        self.process = process_of_labels(chosen, labels[self._chosen], self._of_ranks)

    def _share_of_ensemble(self, y: Floats) -> float:
        """Returns the ensemble's weight: the less it errs on labels it has not seen, the more."""
        bagged = self.ensemble.out_of_bag(self._features)
        unseen = ~np.isnan(bagged)
        alone = self._of_ranks.leave_one_out()
        errors = [np.square(alone - y[self._chosen]).mean(), np.square((bagged - y)[unseen]).mean()]
        return float(errors[0] / sum(errors)) if unseen.any() and sum(errors) > 0 else 0.5

    def latent(self, features: Features) -> Floats:
        """Returns predictions in units of the ranks' deviation: what draws are in, too."""
        ensemble = self.ensemble.members(features).mean(0)
        process = self._of_ranks.mean(features.astype(np.float64))
        return self._share * ensemble + (1 - self._share) * process

    def predict(self, features: Features) -> Floats:
        return self._in_units(self.latent(features))

    def _in_units(self, latent: Floats) -> Floats:
        """Maps normal scores back to labels; beyond the ends by the mean slope of that half."""
        x, y = np.unique(self._ranks, return_index=True)
        labels = self._labels[y]
        value = latent * self._unit
        inside = np.interp(value, x, labels)
        above, below = np.maximum(value - x[-1], 0), np.minimum(value - x[0], 0)
        return inside + _slope(x, labels, -1) * above + _slope(x, labels, 0) * below

    def cross_validated(self) -> Floats:
        bagged = self.ensemble.out_of_bag(self._features)
        alone = self._of_ranks.leave_one_out()
        # both where both can tell, else the one that can
        found = bagged.copy()
        chosen = bagged[self._chosen]
        both = self._share * chosen + (1 - self._share) * alone
        found[self._chosen] = np.where(np.isnan(chosen), alone, both)
        return self._in_units(np.nan_to_num(found))

    def draws(self, count: int, random: np.random.Generator) -> Draws:
        """Returns ``count`` functions, of each family its share of them, (candidates, count)."""
        of_process = round(count * (1 - self._share))
        first = self.ensemble.draws(count - of_process, random)
        second = self._of_ranks.draws(of_process, random)
        return BothDraws(first, second, count - of_process)

    def tensors(self) -> dict[str, Tensor]:
        process = self._of_ranks
        return self.ensemble.tensors() | {
            "process.x": process._x,
            "process.y": process._y,
            "process.lengthscale": process._scale,
            "process.signal_noise": torch.tensor([process._signal, process._noise]),
            "labels": torch.from_numpy(self._labels.copy()),
            "ranks": torch.from_numpy(self._ranks.copy()),
        }


def _slope(x: Floats, y: Floats, end: int) -> float:
    """Returns the mean slope from the middle to an end of ascending points; 1 of a single one."""
    middle = len(x) // 2
    run = x[end] - x[middle] if len(x) > 2 else x[-1] - x[0]
    rise = y[end] - y[middle] if len(x) > 2 else y[-1] - y[0]
    return float(rise / run) if run else 1.0
