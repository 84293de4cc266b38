"""The images of each epoch of a training: their order, their copies, and balanced classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fbnetv3.data.errors import DataError
from fbnetv3.data.seeding import keyed_generator

_ORDER = 0  # first key of the seeds of orders; data/batch_augment.py says who uses other first keys


class EpochOrder:
    """The images of an epoch as pairs (index, copy), drawn with (seed, epoch).

    An epoch has as many pairs as there are images. By default each image appears once, as copy 0.
    If an image appears several times, its copies are numbered from 0 and augmented differently.

    Args:
        size: Number of images.
        seed: Random seed.
        targets: Class of each image; needed for ``balance`` above 0.
        balance: Power p in [0, 1]: the share of a class with n images is proportional to
            ``n ** (1 - p)``. The images of a class are drawn equally often, to within one. With
            ``repeats`` above 1, a random part of these draws is used, so the shares and the equal
            numbers hold approximately.
        repeats: Number of times that each drawn image appears, in consecutive pairs; the last image
            may appear fewer times.

    Raises:
        DataError: ``balance`` is above 0, and the images do not have one class each.
    """

    def __init__(
        self,
        size: int,
        seed: int,
        *,
        targets: Sequence[int] = (),
        balance: float = 0.0,
        repeats: int = 1,
    ) -> None:
        if balance and not (len(targets) == size and all(type(t) is int for t in targets)):
            raise DataError("balanced sampling needs images with one class each")
        self._size, self._seed = size, seed
        self._targets = torch.tensor(list(targets) if balance else [], dtype=torch.int64)
        self._balance, self._repeats = balance, repeats
        self._cached: tuple[int, list[tuple[int, int]]] = (-1, [])

    def of_epoch(self, epoch: int) -> list[tuple[int, int]]:
        """Returns the pairs (index, copy) of an epoch; the first epoch has the number 0."""
        if self._cached[0] != epoch:
            self._cached = (epoch, self._drawn(keyed_generator(_ORDER, self._seed, epoch)))
        return self._cached[1]

    def _drawn(self, generator: torch.Generator) -> list[tuple[int, int]]:
        if self._balance:
            indices = self._balanced(generator)
        else:
            indices = torch.randperm(self._size, generator=generator).tolist()
        unique = indices[: -(-self._size // self._repeats)]
        counts: dict[int, int] = {}
        pairs = []
        for index in unique:
            for _ in range(self._repeats):
                copy = counts.get(index, 0)
                counts[index] = copy + 1
                pairs.append((index, copy))
        return pairs[: self._size]

    def _balanced(self, generator: torch.Generator) -> list[int]:
        classes, numbers = torch.unique(self._targets, return_counts=True)
        shares = numbers.double() ** (1 - self._balance)
        exact = shares / shares.sum() * self._size
        counts = exact.floor().long()
        # The classes with the largest remainders get one image more; ties are broken at random.
        ties = torch.rand(len(classes), generator=generator, dtype=torch.float64) * 1e-9
        rest = self._size - int(counts.sum())
        counts[(exact - counts + ties).argsort(descending=True)[:rest]] += 1
        drawn = []
        for label, count in zip(classes.tolist(), counts.tolist(), strict=True):
            members = torch.nonzero(self._targets == label)[:, 0]
            passes = -(-count // len(members))
            orders = [torch.randperm(len(members), generator=generator) for _ in range(passes)]
            if orders:
                drawn.append(members[torch.cat(orders)[:count]])
        joined = torch.cat(drawn)
        mixed: list[int] = joined[torch.randperm(len(joined), generator=generator)].tolist()
        return mixed
