"""The default predictor: an ensemble of small networks beside a Gaussian process.

Both read the same features and learn the normal scores of the labels' ranks, which heavy tails
do not disturb. Two families err differently; each draws functions for Thompson sampling. A second
process learns the labels themselves, whose peaks ranks would flatten, for expected improvement.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import norm, rankdata
from torch import Tensor
from torch.nn import functional as F

from fbnetv3.search.encoder import EMBEDDING, Pretrained
from fbnetv3.search.encoding import Features
from fbnetv3.search.gp import GaussianProcess, PosteriorDraws, subset
from fbnetv3.search.networks import Floats, Linear, minibatches
from fbnetv3.search.warp import process_of_labels


class Draws(Protocol):
    """Functions drawn from a predictor's posterior."""

    def __call__(self, x: Features) -> Floats:
        """Returns the value of every function at every candidate, (candidates, count)."""

    def own(self, x: Features, functions: npt.NDArray[np.int64]) -> Floats:
        """Returns the value of one function a candidate, (candidates,)."""


_MEMBERS, _HIDDEN = 8, 64
_STEPS, _BATCH, _RATE = 300, 512, 5e-3
_CALM = 0.5
"""Draws of the ensemble keep this share of its spread."""


class Ensemble:
    """Networks with bootstrap weights, trained together from a shared pre-trained encoder.

    Args:
        x: (n, width) features.
        y: (n,) labels of mean 0 and deviation 1.
        pretrained: encoder of the architecture; a copy of it moves with each member.
        seed: of bootstrap, weights and order.
    """

    def __init__(self, x: Features, y: Floats, pretrained: Pretrained, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._arch = pretrained.columns if pretrained.weight is not None else []
        self._encoder = Linear(_MEMBERS, len(self._arch), EMBEDDING, generator)
        if pretrained.weight is not None and pretrained.bias is not None:
            self._encoder.set(pretrained.weight, pretrained.bias)
        width = x.shape[1] + (EMBEDDING if self._arch else 0)
        self._hidden = Linear(_MEMBERS, width, _HIDDEN, generator)
        self._out = Linear(_MEMBERS, _HIDDEN, 1, generator)
        picks = torch.randint(len(x), (_MEMBERS, len(x)), generator=generator)
        self.weights = torch.zeros(_MEMBERS, len(x)).scatter_add_(1, picks, torch.ones(picks.shape))
        self._train(torch.from_numpy(x), torch.from_numpy(y.astype(np.float32)), generator)

    def _train(self, x: Tensor, y: Tensor, generator: torch.Generator) -> None:
        tensors = [*self._hidden.tensors, *self._out.tensors]
        if self._arch:
            tensors += self._encoder.tensors
        optimizer = torch.optim.AdamW(tensors, lr=_RATE, weight_decay=1e-2, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _STEPS)
        done = 0
        while done < _STEPS:
            for index in minibatches(len(x), _BATCH, generator):
                each = F.huber_loss(
                    self._forward(x[index]), y[index].expand(_MEMBERS, -1), reduction="none"
                )
                optimizer.zero_grad(set_to_none=True)
                # summed over members: each is trained as if alone
                (each * self.weights[:, index]).mean(1).sum().backward()
                optimizer.step()
                schedule.step()
                done += 1
                if done == _STEPS:
                    break

    def _forward(self, x: Tensor) -> Tensor:
        wide = x.expand(_MEMBERS, -1, -1)
        if self._arch:
            embedded = F.relu(self._encoder(x[:, self._arch].expand(_MEMBERS, -1, -1)))
            wide = torch.cat([wide, embedded], 2)
        return self._out(F.relu(self._hidden(wide)))[:, :, 0]

    def members(self, x: Features) -> Floats:
        """Returns what each member predicts, (members, candidates)."""
        with torch.no_grad():
            return np.asarray(self._forward(torch.from_numpy(x)).double().numpy())

    def out_of_bag(self, x: Features) -> Floats:
        """Returns each training point's mean over the members that did not see it; NaN if none."""
        unseen = (self.weights == 0).numpy()
        totals = (self.members(x) * unseen).sum(0)
        counts = unseen.sum(0)
        return np.where(counts > 0, totals / np.maximum(counts, 1), np.nan)

    def draws(self, count: int, random: np.random.Generator) -> EnsembleDraws:
        """Returns ``count`` functions: the mean plus a random mixture of deviations from it."""
        mixture = random.standard_normal((_MEMBERS, count)) * _CALM / np.sqrt(_MEMBERS - 1)
        return EnsembleDraws(self, mixture)

    def tensors(self) -> dict[str, Tensor]:
        """Returns the weights of all members."""
        named = {"encoder": self._encoder, "hidden": self._hidden, "out": self._out}
        return {
            f"ensemble.{name}.{kind}": tensor.detach()
            for name, layer in named.items()
            for kind, tensor in zip(("weight", "bias"), layer.tensors, strict=True)
            if tensor.numel()
        }


class EnsembleDraws:
    """The mean of an ensemble plus mixtures of its members' deviations from it.

    Args:
        ensemble: of the members.
        mixture: (members, count) weights.
    """

    def __init__(self, ensemble: Ensemble, mixture: Floats) -> None:
        self._ensemble, self._mixture = ensemble, mixture

    def __call__(self, x: Features) -> Floats:
        found = self._ensemble.members(x)
        mean = found.mean(0)
        return mean[:, None] + (found - mean).T @ self._mixture

    def own(self, x: Features, functions: npt.NDArray[np.int64]) -> Floats:
        found = self._ensemble.members(x)
        mean = found.mean(0)
        return np.asarray(mean + ((found - mean) * self._mixture[:, functions]).sum(0))


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
