"""An ensemble of small networks, bootstrapped and trained side by side."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from fbnetv3.search.predictors.encoder import EMBEDDING, Pretrained
from fbnetv3.search.predictors.networks import BatchedLinear, Floats, minibatches
from fbnetv3.search.space.encoding import Features

_MEMBERS, _HIDDEN = 8, 64  # number of networks, width of their hidden layer
_STEPS, _BATCH, _LR = 300, 512, 5e-3  # training steps, minibatch size, initial learning rate
_NOISE = 0.25
"""Assumed variance of the noise of every label, in addition to the label's error."""
_SPREAD = 0.5
"""Standard deviation of sampled functions, as a share of the members' standard deviation."""


class Ensemble:
    """Networks with one hidden layer, each trained on its own bootstrap sample of the labels.

    With a pre-trained encoder, the hidden layer reads the features and the encoder's embedding of
    the architecture, and every member trains its own copy of the encoder further.

    Args:
        x: (n, width) features.
        y: (n,) labels of mean 0 and standard deviation 1.
        pretrained: Encoder of the architecture. If it has no weights, the members have no encoder.
        seed: Random seed of the bootstrap, the initial weights and the order of minibatches.
        errors: (n,) standard deviation of each label's error; None: 0. A label's loss is multiplied
            by its weight in the bootstrap sample and by 1 / (1 + errors^2 / _NOISE).

    Attributes:
        weights: (members, n) number of occurrences of each label in a member's bootstrap sample.
    """

    def __init__(
        self,
        x: Features,
        y: Floats,
        pretrained: Pretrained,
        seed: int,
        errors: Floats | None = None,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._columns = pretrained.columns if pretrained.weight is not None else []
        self._encoder = BatchedLinear(_MEMBERS, len(self._columns), EMBEDDING, generator)
        if pretrained.weight is not None and pretrained.bias is not None:
            self._encoder.load(pretrained.weight, pretrained.bias)
        width = x.shape[1] + (EMBEDDING if self._columns else 0)
        self._hidden = BatchedLinear(_MEMBERS, width, _HIDDEN, generator)
        self._out = BatchedLinear(_MEMBERS, _HIDDEN, 1, generator)
        picks = torch.randint(len(x), (_MEMBERS, len(x)), generator=generator)
        self.weights = torch.zeros(_MEMBERS, len(x)).scatter_add_(1, picks, torch.ones(picks.shape))
        self._loss_weights = self.weights
        if errors is not None:
            self._loss_weights = self.weights / torch.from_numpy(1 + errors**2 / _NOISE).float()
        self._train(torch.from_numpy(x), torch.from_numpy(y.astype(np.float32)), generator)

    def _train(self, x: Tensor, y: Tensor, generator: torch.Generator) -> None:
        parameters = [*self._hidden.parameters, *self._out.parameters]
        if self._columns:
            parameters += self._encoder.parameters
        optimizer = torch.optim.AdamW(parameters, lr=_LR, weight_decay=1e-2, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _STEPS)
        step = 0
        while step < _STEPS:
            for index in minibatches(len(x), _BATCH, generator):
                optimizer.zero_grad(set_to_none=True)
                self._loss(x, y, index).backward()
                optimizer.step()
                schedule.step()
                step += 1
                if step == _STEPS:
                    break

    def _loss(self, x: Tensor, y: Tensor, index: Tensor) -> Tensor:
        """Returns the sum of the losses of the members, which share no parameters."""
        labels = y[index].expand(_MEMBERS, -1)
        losses = F.huber_loss(self._forward(x[index]), labels, reduction="none")
        return (losses * self._loss_weights[:, index]).mean(1).sum()

    def _forward(self, x: Tensor) -> Tensor:
        inputs = x.expand(_MEMBERS, -1, -1)
        if self._columns:
            architecture = x[:, self._columns].expand(_MEMBERS, -1, -1)
            inputs = torch.cat([inputs, F.relu(self._encoder(architecture))], 2)
        return self._out(F.relu(self._hidden(inputs)))[:, :, 0]

    def members(self, x: Features) -> Floats:
        """Returns the prediction of each member, (members, m), at features (m, width)."""
        with torch.no_grad():
            return np.asarray(self._forward(torch.from_numpy(x)).double().numpy())

    def out_of_bag(self, x: Features) -> Floats:
        """Returns out-of-bag predictions of the labels that the ensemble was trained on, (n,).

        A prediction is the mean over the members whose bootstrap samples lack the label. It is NaN
        if every sample contains the label.

        Args:
            x: (n, width) features that the ensemble was trained on, in the same order.
        """
        is_out = (self.weights == 0).numpy()
        totals = (self.members(x) * is_out).sum(0)
        counts = is_out.sum(0)
        return np.where(counts > 0, totals / np.maximum(counts, 1), np.nan)

    def sample(self, count: int, random: np.random.Generator) -> EnsembleSamples:
        """Samples functions: the mean of the members plus random mixtures of their deviations.

        Args:
            count: Number of functions.
            random: Source of all random numbers.
        """
        mixture = random.standard_normal((_MEMBERS, count)) * _SPREAD / np.sqrt(_MEMBERS - 1)
        return EnsembleSamples(self, mixture)


class EnsembleSamples:
    """Functions that add mixtures of the members' deviations to the mean of an ensemble.

    Args:
        ensemble: Ensemble of the members.
        mixture: (members, count) weights of the members' deviations from the mean.
    """

    def __init__(self, ensemble: Ensemble, mixture: Floats) -> None:
        self._ensemble, self._mixture = ensemble, mixture

    def __call__(self, x: Features) -> Floats:
        """Returns the values of all functions, (m, count), at features (m, width)."""
        mean, deviations = self._mean_and_deviations(x)
        return mean[:, None] + deviations.T @ self._mixture

    def evaluate_each(self, x: Features, functions: npt.NDArray[np.int64]) -> Floats:
        """Returns the value of one function at each candidate, (m,).

        Args:
            x: (m, width) features.
            functions: (m,) index of the function to evaluate at each candidate.
        """
        mean, deviations = self._mean_and_deviations(x)
        return np.asarray(mean + (deviations * self._mixture[:, functions]).sum(0))

    def _mean_and_deviations(self, x: Features) -> tuple[Floats, Floats]:
        members = self._ensemble.members(x)
        mean = members.mean(0)
        return mean, members - mean
