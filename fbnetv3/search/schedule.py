"""The batches of a search: their number, and the stage and the size of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fbnetv3.search.errors import SearchError
from fbnetv3.search.rungs import expected_promotions, most_promotions
from fbnetv3.search.settings import SearchSettings
from fbnetv3.search.trial import Trial


@dataclass(frozen=True)
class Schedule:
    """The batches of a search, which may have been continued after its end.

    A search has ``iterations`` batches of stage 1 and, with ``finalists``, a batch of stage 2. The
    parts of the first batch (``first_parts``) are batches here. If a search is continued with more
    iterations, batches of finalists that were trained keep their numbers, and further batches of
    both stages follow.

    Attributes:
        settings: Settings of the search.
        earlier_finals: Numbers of the batches of stage 2 that have trials, ascending.
        proposed: Number of trials of the first proposed batch; 0: no batch was proposed.
    """

    settings: SearchSettings
    earlier_finals: tuple[int, ...] = ()
    proposed: int = 0

    @classmethod
    def of(
        cls,
        settings: SearchSettings,
        trials: Sequence[Trial],
        where: str = "storage",
        sizes: Mapping[int, int] | None = None,
    ) -> Schedule:
        """Returns the schedule of a search that has trials.

        Args:
            settings: Settings of the search.
            trials: All trials with a result, even failed ones that are to be evaluated again.
            where: Source of the trials, for messages: ``storage`` or ``log``.
            sizes: Number of trials by batch; None: ``trials`` has the whole first batch.

        Raises:
            SearchError: A search with these settings cannot have trials in these batches.
        """
        stages = {(trial.batch, trial.stage) for trial in trials}
        finals = sorted(batch for batch, stage in stages if stage == "fine")
        proposed = _proposed_first(settings, trials, sizes)
        further = len(settings.sizes_of_first_parts(proposed)) - 1
        count = len(stages) - len(finals) - further
        if count > settings.iterations:
            raise SearchError(
                f"iterations={settings.iterations} is fewer than the {where} has: trials of "
                f"{count} batches of stage 1; give iterations={count} or more "
                f"(SEARCH.ITERATIONS), or use another {where}"
            )
        before = -1
        for i, batch in enumerate(finals):
            # A batch of stage 1 comes before each batch of finalists, and stage 1 has no more
            # batches than the settings say.
            if not before + 1 < batch <= settings.iterations + further + i:
                raise SearchError(
                    f"the {where} has finalists in batch {batch}, where this search has none; give "
                    f"the number of iterations with which they were trained, or use another {where}"
                )
            before = batch
        return cls(settings, tuple(finals), proposed)

    @property
    def first_parts(self) -> tuple[int, ...]:
        """The sizes of the batches that are parts of the first batch."""
        return self.settings.sizes_of_first_parts(self.proposed)

    @property
    def count(self) -> int:
        """The number of batches of both stages."""
        total = self._coarse + len(self.earlier_finals)
        ends_with_finals = self.earlier_finals[-1:] == (total - 1,)
        return total + (self.settings.finalists > 0 and not ends_with_finals)

    @property
    def _coarse(self) -> int:
        """The number of batches of stage 1."""
        return self.settings.iterations + len(self.first_parts) - 1

    def stage_of(self, batch: int) -> str:
        """Returns the stage of a batch, ``coarse`` or ``fine``."""
        is_last = batch >= self._coarse + len(self.earlier_finals)
        return "fine" if batch in self.earlier_finals or is_last else "coarse"

    def size_of(self, batch: int) -> int:
        """Returns the largest number of new candidates of a batch."""
        if self.stage_of(batch) == "fine":
            return self.settings.finalists
        parts = self.first_parts
        position = batch - sum(final < batch for final in self.earlier_finals)
        return parts[position] if position < len(parts) else self.settings.batch_size

    def limit_of(self, batch: int) -> int:
        """Returns the largest number of trials of a batch.

        With rungs, these include the trials in which earlier candidates go on to the next rung.
        """
        size = self.size_of(batch)
        if self.stage_of(batch) == "fine":
            return size * self.settings.final_seeds
        return size + most_promotions(self.settings.rungs, size)

    def limit_before(self, batch: int) -> int:
        """Returns the largest number of trials of all batches before ``batch``."""
        return sum(map(self.limit_of, range(batch)))

    def size(self) -> int:
        """Returns the number of trials of the search if none fails and every batch is full."""
        settings = self.settings
        further = expected_promotions(settings.rungs, settings.batch_size, settings.iterations)
        finals = (self.count - self._coarse) * settings.finalists * settings.final_seeds
        return settings.iterations * settings.batch_size + further + finals


def _proposed_first(
    settings: SearchSettings, trials: Sequence[Trial], sizes: Mapping[int, int] | None
) -> int:
    """Returns the size of the first batch that was proposed; see :meth:`Schedule.of`."""
    if sizes is None:
        return sum(trial.batch == 0 for trial in trials)
    # Storages of earlier versions have no sizes, and their first batch is not divided into parts.
    return sizes.get(0, settings.batch_size if trials else 0)
