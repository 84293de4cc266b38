"""The predictor of the paper (Fig. 4, Section 3.1 and A.2)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fbnetv3.search.predictors.encoder import EMBEDDING, Pretrained
from fbnetv3.search.predictors.networks import BatchedLinear, Floats, minibatches, standardise
from fbnetv3.search.space.encoding import Features

_HIDDEN, _BATCH = 32, 16  # width of the hidden layer, size of a minibatch
_HEAD_EPOCHS, _HEAD_LR = 50, 1e-2  # with the encoder frozen
_ALL_EPOCHS, _ALL_LR = 50, 1e-3  # with all parameters
_FOLDS = 5  # of the cross-validation
_FOLD_STREAM = 41  # separates the folds' random numbers from others of the same seed


class PaperPredictor:
    """An architecture encoder and one hidden layer that reads the embedding and the recipe.

    It minimises the Huber loss on standardised labels: for 50 epochs with the encoder frozen, then
    for 50 epochs with all parameters and a lower learning rate. An encoder that is not pre-trained
    is trained in all 100 epochs.

    Args:
        features: (n, width) features.
        labels: (n,) labels.
        pretrained: Encoder of the architecture.
        seed: Random seed of the initial weights, the order of minibatches and the folds.
        errors: (n,) standard errors of the labels. They are ignored: all labels weigh the same.
    """

    def __init__(
        self,
        features: Features,
        labels: Floats,
        pretrained: Pretrained,
        seed: int,
        errors: Floats | None = None,
    ) -> None:
        self._features, self._labels = features, labels
        self._pretrained, self._seed = pretrained, seed
        self._columns = pretrained.columns
        self._recipe = sorted(set(range(features.shape[1])) - set(self._columns))
        generator = torch.Generator().manual_seed(seed)
        self._encoder = BatchedLinear(1, len(self._columns), EMBEDDING, generator)
        if pretrained.weight is not None and pretrained.bias is not None:
            self._encoder.load(pretrained.weight, pretrained.bias)
        width = (EMBEDDING if self._columns else 0) + len(self._recipe)
        self._hidden = BatchedLinear(1, width, _HIDDEN, generator)
        self._out = BatchedLinear(1, _HIDDEN, 1, generator)
        y, self._mean, std = standardise(labels)
        self._std = std if y.any() else 0.0  # equal labels: predict their value
        self._train(torch.from_numpy(features), torch.from_numpy(y.astype(np.float32)), generator)

    def _train(self, x: Tensor, y: Tensor, generator: torch.Generator) -> None:
        head = [*self._hidden.parameters, *self._out.parameters]
        everything = [*head, *self._encoder.parameters] if self._columns else head
        first = head if self._pretrained.weight is not None else everything
        stages = ((_HEAD_EPOCHS, first, _HEAD_LR), (_ALL_EPOCHS, everything, _ALL_LR))
        for epochs, parameters, lr in stages:
            optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=1e-4, fused=True)
            for _ in range(epochs):
                for index in minibatches(len(x), _BATCH, generator):
                    loss = F.huber_loss(self._forward(x[index]), y[index])
                    # optimizer.zero_grad() would leave out the gradients of the frozen encoder.
                    for parameter in everything:
                        parameter.grad = None
                    loss.backward()
                    optimizer.step()

    def _forward(self, x: Tensor) -> Tensor:
        inputs = [x[:, self._recipe][None]]
        if self._columns:
            inputs.insert(0, F.relu(self._encoder(x[:, self._columns][None])))
        return self._out(F.relu(self._hidden(torch.cat(inputs, 2))))[0, :, 0]

    def predict(self, features: Features) -> Floats:
        """Returns predicted labels, (m,), at features (m, width)."""
        with torch.no_grad():
            y = self._forward(torch.from_numpy(features)).double().numpy()
        return np.asarray(y * self._std + self._mean)

    def cross_validated(self) -> Floats:
        """Returns the prediction of each label by a predictor that was fitted without it, (n,).

        The labels are divided at random into 5 folds, or into n folds if there are fewer than 5
        labels; the predictor of a fold is fitted to the labels of the other folds.
        """
        n = len(self._labels)
        folds = min(_FOLDS, n)
        fold = np.random.default_rng([self._seed, _FOLD_STREAM]).permutation(n) % folds
        predictions = np.full(n, np.nan)
        for i in range(folds):
            train, test = fold != i, fold == i
            fitted = PaperPredictor(
                self._features[train], self._labels[train], self._pretrained, self._seed
            )
            predictions[test] = fitted.predict(self._features[test])
        return predictions
