"""The batches of a search: their number, and the stage and the size of each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fbnetv3.search.errors import SearchError
from fbnetv3.search.rungs import expected_promotions
from fbnetv3.search.settings import SearchSettings
from fbnetv3.search.trial import Trial


@dataclass(frozen=True)
class Schedule:
    """The batches of a search, which may have been continued after its end.

    A search has ``iterations`` batches of stage 1 and, with ``finalists``, a batch of stage 2. If
    it is continued with more iterations, finalists that were trained stay where they are, and
    further batches of both stages follow.

    Attributes:
        settings: Settings of the search.
        earlier_finals: Numbers of the batches of stage 2 that have trials, ascending.
    """

    settings: SearchSettings
    earlier_finals: tuple[int, ...] = ()

    @classmethod
    def of(
        cls, settings: SearchSettings, trials: Iterable[Trial], where: str = "storage"
    ) -> Schedule:
        """Returns the batches of a search that has trials.

        Args:
            settings: Settings of the search.
            trials: All trials with a result, also those that were put back.
            where: Source of the trials, for messages: ``storage`` or ``log``.

        Raises:
            SearchError: The trials belong to more batches of stage 1 than the search has, or to
                batches of stage 2 that no search has.
        """
        stages = {(trial.batch, trial.stage) for trial in trials}
        finals = sorted(batch for batch, stage in stages if stage == "fine")
        count = len(stages) - len(finals)
        if count > settings.iterations:
            raise SearchError(
                f"iterations={settings.iterations} is fewer than the {where} has: trials of "
                f"{count} batches of stage 1; give iterations={count} or more "
                f"(SEARCH.ITERATIONS), or use another {where}"
            )
        before = -1
        for i, batch in enumerate(finals):
            # a batch of stage 1 comes before each, and there are no more of them than iterations
            if not before + 1 < batch <= settings.iterations + i:
                raise SearchError(
                    f"the {where} has finalists in batch {batch}, where this search has none; give "
                    f"the number of iterations with which they were trained, or use another {where}"
                )
            before = batch
        return cls(settings, tuple(finals))

    @property
    def count(self) -> int:
        """The number of batches of both stages."""
        total = self.settings.iterations + len(self.earlier_finals)
        ends_with_finals = self.earlier_finals[-1:] == (total - 1,)
        return total + (self.settings.finalists > 0 and not ends_with_finals)

    def stage_of(self, batch: int) -> str:
        """Returns the stage of a batch, ``coarse`` or ``fine``."""
        is_last = batch >= self.settings.iterations + len(self.earlier_finals)
        return "fine" if batch in self.earlier_finals or is_last else "coarse"

    def size_of(self, batch: int) -> int:
        """Returns the largest number of new candidates of a batch."""
        is_fine = self.stage_of(batch) == "fine"
        return self.settings.finalists if is_fine else self.settings.batch_size

    def limit_of(self, batch: int) -> int:
        """Returns the largest number of trials of a batch, also of candidates that go on."""
        is_fine = self.stage_of(batch) == "fine"
        parts = self.settings.final_seeds if is_fine else max(1, len(self.settings.rungs))
        return self.size_of(batch) * parts

    def limit_before(self, batch: int) -> int:
        """Returns the largest number of trials of all batches before one."""
        return sum(map(self.limit_of, range(batch)))

    def size(self) -> int:
        """Returns the number of trials of the search if none fails, at most."""
        settings = self.settings
        coarse = sum(self.stage_of(batch) == "coarse" for batch in range(self.count))
        further = expected_promotions(settings.rungs, settings.batch_size, coarse)
        finals = (self.count - coarse) * settings.finalists * settings.final_seeds
        return coarse * settings.batch_size + further + finals
