"""What a search keeps in its storage besides its trials, as attributes of the study.

For each batch, the size of the batch is kept, which tells whether all of its trials are stored.
With the setting ``ahead``, a batch may be proposed while trials still run; the numbers of these are
kept, too. The early stop (the epoch at which candidates are compared) is kept for other programs,
and the report cards of predictors are kept because computing them again would require a fit of the
predictor per batch. Each enqueued candidate has an attribute, which any process may add.
Another attribute, one per batch, lists the enqueued candidates that the batch took. For each trial
that was put back to be evaluated again, the reasons of its failures are kept.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from fbnetv3.search.acquisition.early_stopping import EarlyStop
from fbnetv3.search.enqueued import Enqueued
from fbnetv3.search.errors import SearchError
from fbnetv3.search.predictors.report_card import ReportCard
from fbnetv3.search.storage.batch_log import RUNNING_AT
from fbnetv3.search.storage.store import TrialStore
from fbnetv3.search.trial import Trial

_SIZE = "size_of_batch_"
"""Prefix of the keys of batch sizes; the number of the batch follows."""
_RETRIES = "retries_of_trial_"
"""Prefix of the keys of :class:`Retries`; the number of the trial follows."""
_ENQUEUED = "enqueued_"
"""Prefix of the keys of enqueued candidates; a number and the id of the candidate follow."""
_ENQUEUED_AT = "enqueued_at_batch_"
"""Prefix of the keys of the enqueued candidates that a batch took; the batch's number follows."""
_CARDS = "report_cards"
"""Key of the summaries of all report cards."""
_BATCHES = "batches"
"""Key, in a summary, of the number of finished batches that the predictor was fitted to."""
_HELD_OUT = "held_out_after_batch_"
"""Prefix of the keys of cross-validated predictions; the number of finished batches follows."""
_MAX_HELD_OUT = 1000
"""Largest number of predictions of a report card; if it has more, none of them is kept.

A TEXT column of MySQL holds at most 64 kB.
"""


class StoredCard(NamedTuple):
    """A report card of an earlier process.

    Attributes:
        card: The summary numbers.
        held_out: Cross-validated prediction of each trial that the predictor was fitted to, in the
            order of the trials' numbers; [] if the storage does not have them.
    """

    card: ReportCard
    held_out: list[float]


@dataclass(frozen=True)
class Retries:
    """The failed trials that were put back to be evaluated again.

    Attributes:
        entries: By number of the trial, a pair for each time that it was put back: the number of
            leading batches for which its failure counts, and the reason of the failure.
    """

    entries: Mapping[int, Sequence[tuple[int, str]]]

    def reasons(self, number: int) -> list[str]:
        """Returns the reasons of the failures after which a trial was put back."""
        return [reason for _, reason in self.entries.get(number, ())]

    def reason_at(self, number: int, batch: int) -> str | None:
        """Returns the reason for which a trial had failed when a batch was proposed.

        Args:
            number: Number of the trial.
            batch: Number of the batch.

        Returns:
            The reason; None if the trial has not been put back since.
        """
        later = (reason for batches, reason in self.entries.get(number, ()) if batches > batch)
        return next(later, None)

    def current(self, trials: Iterable[Trial]) -> list[Trial]:
        """Returns stored trials without the failures after which a trial was put back.

        Args:
            trials: Stored trials; trials with the same number are in the order of their storage.
        """
        kept: list[Trial] = []
        passed: Counter[int] = Counter()
        for trial in trials:
            passed[trial.number] += 1
            if passed[trial.number] > len(self.entries.get(trial.number, ())):
                kept.append(trial)
        return kept


class Records:
    """The attributes of a study that a search reads and writes.

    Args:
        store: Storage of the search.
    """

    def __init__(self, store: TrialStore) -> None:
        self._store = store

    @property
    def sizes(self) -> dict[int, int]:
        """The size of each proposed batch, by its number; {} in storages of earlier versions."""
        keys = {k: v for k, v in self._store.attrs().items() if re.fullmatch(rf"{_SIZE}\d+", k)}
        sizes = {int(key.removeprefix(_SIZE)): size for key, size in keys.items()}
        return {number: size for number, size in sizes.items() if type(size) is int and size >= 0}

    def set_size(self, batch: int, size: int) -> None:
        """Stores the size of a batch."""
        self._store.set_attr(f"{_SIZE}{batch}", size)

    @property
    def order(self) -> dict[str, Any]:
        """Attributes with the numbers of the trials that ran when a batch was proposed, by key.

        Only a search with ``ahead`` has them; the key of batch N is ``running_at_batch_N``.
        """
        return {k: v for k, v in self._store.attrs().items() if k.startswith(RUNNING_AT)}

    def running_at(self, batch: int, running: Iterable[int], *, renew: bool = False) -> set[int]:
        """Returns the trials that were running when a batch was proposed, by number.

        Args:
            batch: Number of the batch.
            running: Numbers of the trials that are running now. They are stored and returned if
                the storage has none for this batch.
            renew: Whether they replace those of the storage.

        Raises:
            SearchError: The stored value is not a list of numbers, so another program wrote it.
        """
        name = f"{RUNNING_AT}{batch}"
        recorded = self._store.attrs().get(name)
        if recorded is None or renew:
            recorded = sorted(running)
            # Stored before the batch is proposed, so that a later process can propose it again.
            self._store.set_attr(name, recorded)
        if not isinstance(recorded, list) or not all(type(number) is int for number in recorded):
            raise SearchError(
                f"the storage has {name}={str(recorded)[:60]}, which is no list of trials; use "
                "another storage"
            )
        return set(recorded)

    @property
    def enqueued(self) -> list[Enqueued]:
        """All candidates that were ever enqueued, in the order in which they were enqueued.

        Raises:
            SearchError: A stored value is not a candidate, so another program wrote it.
        """
        attributes = self._store.attrs()
        names = sorted((n for n in attributes if _key_parts(n)[0] >= 0), key=_key_parts)
        return [_enqueued(name, attributes[name]) for name in names]

    def enqueue(self, candidate: Enqueued) -> None:
        """Stores a candidate that is to be evaluated.

        The key has the id of the candidate, so that two processes that store different candidates
        at the same time do not overwrite each other's attributes.
        """
        numbers = [n for n, _ in map(_key_parts, self._store.attrs()) if n >= 0]
        name = f"{_ENQUEUED}{max(numbers, default=-1) + 1:06d}_{candidate.id}"
        self._store.set_attr(name, {"config": candidate.config, "reason": candidate.reason})

    def enqueued_at(self, batch: int) -> list[str]:
        """Returns the ids of the enqueued candidates that a batch took.

        Raises:
            SearchError: The stored value is not a list of ids, so another program wrote it.
        """
        ids = self._store.attrs().get(f"{_ENQUEUED_AT}{batch}", [])
        if not isinstance(ids, list) or not all(isinstance(key, str) for key in ids):
            raise SearchError(
                f"the storage has {_ENQUEUED_AT}{batch}={str(ids)[:60]}, which is no list of "
                "candidates; use another storage"
            )
        return ids

    def set_enqueued_at(self, batch: int, ids: Sequence[str]) -> None:
        """Stores the enqueued candidates that a batch takes."""
        self._store.set_attr(f"{_ENQUEUED_AT}{batch}", list(ids))

    @property
    def retries(self) -> Retries:
        """The trials that were put back.

        Raises:
            SearchError: A stored value is not a list of pairs, so another program wrote it.
        """
        entries: dict[int, list[tuple[int, str]]] = {}
        for name, value in self._store.attrs().items():
            if re.fullmatch(rf"{_RETRIES}\d+", name):
                entries[int(name.removeprefix(_RETRIES))] = _retries(name, value)
        return Retries(entries)

    def add_retries(self, failed: Sequence[Trial], batches: int) -> None:
        """Stores that failed trials are put back to be evaluated again.

        The report cards of predictors that were fitted after the failures are dropped.

        Args:
            failed: The failed trials; at least one.
            batches: Number of leading batches for which the failures count.
        """
        entries = self.retries.entries
        for trial in failed:
            earlier = [*entries.get(trial.number, ()), (batches, str(trial.reason))]
            self._store.set_attr(f"{_RETRIES}{trial.number}", [list(entry) for entry in earlier])
            rows = self._store.attrs().get(_CARDS)
            if isinstance(rows, list):
                kept = [
                    r for r in rows if isinstance(r, dict) and r.get(_BATCHES, 0) <= trial.batch
                ]
                self._store.set_attr(_CARDS, kept)

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
        self._store.set_attr(_CARDS, _summaries(merged))

    def cards(self) -> dict[int, StoredCard]:
        """Returns the stored report cards by the number of finished batches.

        Report cards of earlier versions, and values that are no report card, are left out.
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


def _retries(name: str, value: Any) -> list[tuple[int, str]]:
    """Returns the entries of one trial.

    Raises:
        SearchError: The value is not a list of pairs, so another program wrote it.
    """
    pairs = value if isinstance(value, list) else [value]
    for pair in pairs:
        is_pair = isinstance(pair, list) and [type(item) for item in pair] == [int, str]
        if not is_pair:
            raise SearchError(
                f"the storage has {name}={str(value)[:60]}, which is no list of retries; use "
                "another storage"
            )
    return [(batches, reason) for batches, reason in pairs]


def _key_parts(name: str) -> tuple[int, str]:
    """Returns number and id in the key of an enqueued candidate; (-1, "") for any other key."""
    match = re.fullmatch(rf"{_ENQUEUED}(\d{{6,}})_(\w+)", name)
    return (-1, "") if match is None else (int(match[1]), match[2])


def _enqueued(name: str, value: Any) -> Enqueued:
    """Returns the enqueued candidate that an attribute holds.

    Raises:
        SearchError: The value is not a candidate, so another program wrote it.
    """
    is_whole = isinstance(value, dict) and {*value} == {"config", "reason"}
    if (
        not is_whole
        or not isinstance(value["config"], dict)
        or not isinstance(value["reason"], str)
    ):
        raise SearchError(
            f"the storage has {name}={str(value)[:60]}, which is no enqueued candidate; use "
            "another storage"
        )
    return Enqueued(_key_parts(name)[1], value["config"], value["reason"])


def _summaries(cards: Mapping[int, ReportCard]) -> list[dict[str, Any]]:
    """Returns report cards, by the number of finished batches, as plain values."""
    return [{**cards[count].summary(), _BATCHES: count} for count in sorted(cards)]


def _card(row: Any) -> ReportCard | None:
    """Returns the report card of a stored row; None if the row is no summary of a report card."""
    names = ("kendall", "spearman", "rmse", "p_value", "batch_kendall")
    if not isinstance(row, dict) or {*row} != {*names, "trials", _BATCHES}:
        return None
    # JSON has no NaN: the storage holds None instead.
    numbers: dict[str, Any] = {name: math.nan if row[name] is None else row[name] for name in names}
    is_number = all(type(number) in (int, float) for number in numbers.values())
    if not is_number or not all(type(row[key]) is int for key in ("trials", _BATCHES)):
        return None
    return ReportCard(trials=row["trials"], batch=[], **numbers)
