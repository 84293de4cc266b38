"""Callbacks of a search: which events they get, and what they can read at each."""

from __future__ import annotations

from collections import Counter

from fbnetv3.search import JointNAS
from fbnetv3.search.trial import Event
from tests.search import problem


def test_each_trial_starts_reports_and_finishes() -> None:
    events: list[tuple[int, str]] = []
    states: set[tuple[str, str]] = set()

    def note(search: JointNAS, event: Event) -> None:
        assert search.trials[event.trial.number] == event.trial  # each is a copy
        events.append((event.trial.number, event.kind))
        states.add((event.kind, event.trial.state))

    counts: Counter[str] = Counter()
    search = problem.search()
    result = search.run(
        problem.evaluate, callbacks=[note, lambda search, event: counts.update([event.kind])]
    )
    assert states == {("start", "running"), ("report", "running"), ("finish", "complete")}
    for trial in result.trials:
        kinds = [kind for number, kind in events if number == trial.number]
        assert kinds == ["start", *["report"] * len(trial.reports), "finish"]
    assert counts == Counter(kind for _, kind in events)
    # A batch is announced before any of its trials finishes.
    assert [kind for _, kind in events if kind != "report"][:8] == ["start"] * 8
