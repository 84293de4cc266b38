"""Candidates as the features of a predictor: one-hot for choices, min-max for ranges."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fbnetv3.search.space.parameters import Levels
from fbnetv3.search.space.space import SearchSpace

Features = npt.NDArray[np.float32]


class Encoding:
    """Converts levels (the index of each variable's value) into features.

    The features of inactive variables are 0. A variable with a single value also has a column.

    Args:
        space: Space of the candidates.

    Attributes:
        width: Number of feature columns.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        widths = [1 if p.is_ordered else p.size for p in space.parameters]
        ends = np.cumsum(widths)
        self._slices = [slice(int(e - w), int(e)) for e, w in zip(ends, widths, strict=True)]
        self.width = int(ends[-1])

    def columns_of(self, part: str) -> list[int]:
        """Returns the feature columns of a part, ``architecture`` or ``recipe``."""
        slices = [self._slices[i] for i in self._space.indices_of_part(part)]
        return [column for s in slices for column in range(s.start, s.stop)]

    def encode(self, levels: Levels) -> Features:
        """Returns features in [0, 1], (candidates, width)."""
        out = np.zeros((len(levels), self.width), dtype=np.float32)
        active = self._space.active(levels)
        rows = np.arange(len(levels))
        for i, (parameter, part) in enumerate(
            zip(self._space.parameters, self._slices, strict=True)
        ):
            if parameter.is_ordered:
                out[:, part.start] = parameter.to_unit_interval(levels[:, i])
            else:
                out[rows, part.start + levels[:, i]] = 1
            out[:, part] *= active[:, i, None]
        return out
