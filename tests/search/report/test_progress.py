"""The lines that a search prints while it runs."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from fbnetv3.search.report.progress import SearchProgress, duration
from fbnetv3.search.trial import Event, Trial


def _finished(number: int, score: float | None) -> Trial:
    trial = Trial(f"t{number}", number, 0, {})
    trial.finish(score, None if score is not None else "it broke")
    return trial


def test_the_best_score_follows_early_stopping() -> None:
    stream = io.StringIO()
    progress = SearchProgress(4, stream, batches=2)
    first, second = _finished(0, 48.0), _finished(1, 40.0)
    progress.show(Event("finish", first))
    progress.show(Event("finish", second))
    assert "[2/4] batch 1/2  t1  40.00  best 48.00" in stream.getvalue()
    progress.rescore([replace(first, score=20.0), replace(second, score=30.0)])
    progress.show(Event("finish", _finished(2, None)))
    assert "t2  failed: it broke  best 30.00" in stream.getvalue()


def test_trials_of_an_earlier_process_are_counted() -> None:
    stream = io.StringIO()
    progress = SearchProgress(4, stream)
    progress.replayed([_finished(0, 3.0), _finished(1, None)])
    progress.show(Event("finish", _finished(2, 1.0)))
    assert "[3/4]" in stream.getvalue()
    assert "best 3.00" in stream.getvalue()


def test_the_scores_of_a_warm_start_are_not_the_best() -> None:
    stream = io.StringIO()
    progress = SearchProgress(4, stream)
    finished, earlier = _finished(0, 48.0), _finished(1, 90.0)
    progress.show(Event("finish", finished))
    progress.rescore([finished, replace(earlier, batch=-1)])
    progress.show(Event("finish", _finished(2, 1.0)))
    assert "[2/4]" in stream.getvalue()
    assert "best 48.00" in stream.getvalue().splitlines()[-1]


class _Counted(Trial):
    """A trial that counts how often scores are read."""

    reads = 0

    def __getattribute__(self, name: str) -> object:
        if name == "score":
            _Counted.reads += 1
        return super().__getattribute__(name)


def test_the_cost_of_an_event_does_not_grow_with_the_trials() -> None:
    progress, reads = SearchProgress(300, io.StringIO()), []
    for number in range(300):
        before = _Counted.reads
        trial = _Counted(f"t{number}", number, 0, {})
        progress.show(Event("start", trial))
        for epoch in range(1, 4):
            trial.report(epoch, 0.5)
            progress.show(Event("report", trial))
        trial.finish(float(number % 97))
        progress.show(Event("finish", trial))
        reads.append(_Counted.reads - before)
    assert max(reads[200:]) <= max(reads[10:100])


def test_without_a_stream_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with SearchProgress(1, None) as progress:
        progress.say("a line")
        progress.show(Event("finish", _finished(0, 1.0)))
    assert capsys.readouterr() == ("", "")


def test_lines_have_the_seconds_per_trial_and_the_time_left() -> None:
    stream = io.StringIO()
    progress = SearchProgress(40, stream)
    progress.replayed([_finished(0, 3.0)])
    progress._start -= 100.0  # as if the trial had taken so long
    progress.show(Event("finish", _finished(1, 1.0)))
    assert stream.getvalue().endswith("best 3.00  100 s per trial, 63 min left\n")
    progress.show(Event("finish", _finished(2, 1.0)))
    assert stream.getvalue().endswith("50 s per trial, 31 min left\n")


@pytest.mark.parametrize("unit", ["epoch", "iteration"])
def test_the_bar_names_the_unit_of_reported_scores(unit: str) -> None:
    progress, trial = SearchProgress(1, None, unit=unit), Trial("t0", 0, 0, {})
    trial.report(20, 0.5)
    progress.show(Event("report", trial))
    assert progress._bar.tasks[0].fields["note"] == f"t0 at {unit} 20: 0.50"


def test_the_bar_has_each_seed_of_a_finalist() -> None:
    progress = SearchProgress(2, stream := io.StringIO())
    trials = [Trial("t0", i, 1, {}, stage="fine", replicate=i) for i in range(2)]
    for trial in trials:
        trial.report(1, 0.5)
        progress.show(Event("report", trial))
    note = progress._bar.tasks[0].fields["note"]
    assert note == "t0 at epoch 1: 0.50, t0_seed1 at epoch 1: 0.50"
    trials[1].finish(0.75)
    progress.show(Event("finish", trials[1]))
    assert progress._bar.tasks[0].fields["note"] == "best 0.75  t0 at epoch 1: 0.50"
    assert "t0_seed1  0.75" in stream.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (5399, "90 min"), (9e4, "25.0 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_parts_of_trainings_are_no_best_scores() -> None:
    stream = io.StringIO()
    with SearchProgress(3, stream, full_epochs=9) as progress:
        for number, (epochs, score) in enumerate([(3, 50.0), (9, 40.0)]):
            trial = Trial("a", number, 0, {}, max_epochs=epochs)
            trial.finish(score)
            progress.show(Event("finish", trial))
    first, second = stream.getvalue().splitlines()
    assert "50.00 after 3 of 9 epochs  none trained in full" in first
    assert "40.00 after 9 of 9 epochs  best 40.00" in second
