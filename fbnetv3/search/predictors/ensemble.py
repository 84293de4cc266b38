"""An ensemble of small networks as a predictor."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from fbnetv3.search.predictors.encoder import EMBEDDING, Pretrained
from fbnetv3.search.predictors.networks import Floats, Linear, minibatches
from fbnetv3.search.space.encoding import Features


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
