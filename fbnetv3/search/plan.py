"""What a search knows before any candidate is trained."""

from __future__ import annotations

from dataclasses import dataclass

from fbnetv3.search.predictors.encoder import Pretrained
from fbnetv3.search.space.pool import Pool
from fbnetv3.search.space.reach import Reach


@dataclass(frozen=True)
class Plan:
    """The state of a search before any candidate is trained.

    Attributes:
        pool: Quasi Monte-Carlo sample of the feasible candidates.
        reach: Range of each constrained statistic, by name.
        pretrained: The predictor's encoder, trained on the pool's statistics. Its weights are None
            if the settings or the statistics allow no pre-training.
    """

    pool: Pool
    reach: dict[str, Reach]
    pretrained: Pretrained
