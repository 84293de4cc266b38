"""The interface of the spaces that a config can search."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from fbnetv3.arch.latency import LatencyTable
from fbnetv3.recipe import Recipe
from fbnetv3.search.space.constraints import StatisticsFn
from fbnetv3.search.space.space import SearchSpace


class CandidateSpace(Protocol):
    """A space of (network, recipe) pairs.

    :class:`~fbnetv3.search.fbnet.space.FBNetSpace` is the one of FBNets. To add another kind,
    write a class with these members, and choose it in ``config.space_from_config``.

    Attributes:
        space: The variables.
        digest: Hash of all that decides what a candidate is; a stored search with another one is
            refused.
    """

    space: SearchSpace
    digest: str

    @property
    def has_architecture(self) -> bool:
        """Whether the network is searched too, and not only the recipe."""

    def size_lines(self) -> list[str]:
        """Returns lines about the space for the plan that a search prints."""

    def recipe(self, config: Mapping[str, Any], base: Recipe) -> Recipe:
        """Returns a candidate's recipe: ``base`` with the fields that the space sets."""

    def network_keys(
        self, config: Mapping[str, Any], num_classes: int, arch_file: Path
    ) -> dict[str, Any]:
        """Returns the config keys that make the network a candidate's, such as MODEL.ARCH.

        Args:
            config: Value by variable.
            num_classes: Number of outputs of the classifier.
            arch_file: Path of a file that the space may write, and to which MODEL.ARCH may refer.
        """

    def statistics(
        self, num_classes: int, latency: LatencyTable | None = None
    ) -> StatisticsFn | None:
        """Returns the function that computes the costs of candidates; None: all cost the same.

        Args:
            num_classes: Number of outputs of the classifier.
            latency: Measured latencies of blocks. None: there is no statistic ``latency_ms``.
        """
