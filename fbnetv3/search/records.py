"""What a search keeps in its storage beside its trials.

For each batch these are its size, which says whether all of its trials are stored, and with
``ahead`` the numbers of the trials that were running when it was proposed. The early stop and the
report cards are kept, too: computing them again would take a fit of the predictor per batch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from fbnetv3.search.acquisition.early_stopping import EarlyStop
from fbnetv3.search.errors import SearchError
from fbnetv3.search.predictors.report_card import ReportCard
from fbnetv3.search.storage.batch_log import RUNNING_AT
from fbnetv3.search.storage.store import TrialStore

_SIZE = "size_of_batch_"
"""Prefix of the keys of batch sizes; the number of the batch follows."""
_CARDS, _BATCHES, _HELD_OUT = "report_cards", "batches", "held_out_after_batch_"
_MAX_HELD_OUT = 1000
"""Largest number of predictions that are kept: a text of MySQL has at most 64 kB."""


class StoredCard(NamedTuple):
    """A report card of an earlier process.

    Attributes:
        card: The summary numbers.
        held_out: Cross-validated prediction of each trial that the predictor was fitted to, by
            number of the trial; [] if they were too many to be kept.
    """

    card: ReportCard
    held_out: list[float]


class Records:
    """Attributes of a study that belong to its batches.

    Args:
        store: Storage of the search.
    """

    def __init__(self, store: TrialStore) -> None:
        self._store = store

    @property
    def sizes(self) -> dict[int, int]:
        """The size of each batch that was proposed, by number; {} for older storages."""
        keys = {k: v for k, v in self._store.attrs().items() if re.fullmatch(rf"{_SIZE}\d+", k)}
        sizes = {int(key.removeprefix(_SIZE)): size for key, size in keys.items()}
        return {number: size for number, size in sizes.items() if type(size) is int and size >= 0}

    def set_size(self, batch: int, size: int) -> None:
        """Stores the size of a batch."""
        self._store.set_attr(f"{_SIZE}{batch}", size)

    @property
    def order(self) -> dict[str, Any]:
        """The numbers of the trials that were running when each batch was proposed ahead."""
        return {k: v for k, v in self._store.attrs().items() if k.startswith(RUNNING_AT)}

    def running_at(self, batch: int, running: Iterable[int]) -> set[int]:
        """Returns the trials that were running when a batch was proposed, by number.

        Args:
            batch: Number of the batch.
            running: Trials that are running now, which are stored if the batch has no record.

        Raises:
            SearchError: The stored value is not a list of numbers, so another program wrote it.
        """
        name = f"{RUNNING_AT}{batch}"
        recorded = self._store.attrs().get(name)
        if recorded is None:
            recorded = sorted(running)
            self._store.set_attr(name, recorded)  # before the batch, which it makes repeatable
        if not isinstance(recorded, list) or not all(type(number) is int for number in recorded):
            raise SearchError(
                f"the storage has {name}={str(recorded)[:60]}, which is no list of trials; use "
                "another storage"
            )
        return set(recorded)

    def save(self, early_stop: EarlyStop | None, cards: Mapping[int, ReportCard]) -> None:
        """Stores the early stop and the report cards, for later processes and other programs.

        Args:
            early_stop: The early stop; None: not known.
            cards: Report card by the number of finished batches.
        """
        if early_stop is not None:
            self._store.set_attr("early_stop", vars(early_stop))
        for count, card in cards.items():
            if 0 < len(card.held_out) <= _MAX_HELD_OUT:
                self._store.set_attr(f"{_HELD_OUT}{count}", [pair[0] for pair in card.held_out])
        # A search that is replayed batch by batch keeps the cards of its later batches.
        merged = {count: stored.card for count, stored in self.cards().items()} | dict(cards)
        summaries = [{**merged[count].summary(), _BATCHES: count} for count in sorted(merged)]
        self._store.set_attr(_CARDS, summaries)

    def cards(self) -> dict[int, StoredCard]:
        """Returns the stored report cards by number of finished batches.

        Cards of older storages, and values that are not those of a card, are left out.
        """
        attributes = self._store.attrs()
        rows, cards = attributes.get(_CARDS), {}
        for row in rows if isinstance(rows, list) else []:
            card = _card(row)
            if card is not None:
                held_out = attributes.get(f"{_HELD_OUT}{row[_BATCHES]}")
                if not isinstance(held_out, list) or not all(type(p) is float for p in held_out):
                    held_out = []
                cards[row[_BATCHES]] = StoredCard(card, held_out)
        return cards


def _card(row: Any) -> ReportCard | None:
    """Returns the report card of a stored summary; None if it is not one."""
    names = ("kendall", "spearman", "rmse", "p_value", "batch_kendall")
    if not isinstance(row, dict) or {*row} != {*names, "trials", _BATCHES}:
        return None
    # JSON has no NaN: the storage holds None instead.
    numbers: dict[str, Any] = {name: math.nan if row[name] is None else row[name] for name in names}
    is_number = all(type(number) in (int, float) for number in numbers.values())
    if not is_number or not all(type(row[key]) is int for key in ("trials", _BATCHES)):
        return None
    return ReportCard(trials=row["trials"], batch=[], **numbers)
