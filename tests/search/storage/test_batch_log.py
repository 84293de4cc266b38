"""A search goes on from its log alone, where its machine is lost."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from fbnetv3.search import JointNAS, SearchError, Trial
from fbnetv3.search.storage.batch_log import BatchLog, Logged, repeatable
from tests.search import problem
from tests.search.test_ahead import AHEAD, Killed, Shuffled


def _never(trial: Trial) -> float:
    pytest.fail("a finished trial was done again")


def _logged(search: JointNAS, folder: Path) -> BatchLog:
    log = BatchLog(folder)
    log.write(search.trials, search.settings, search.order)
    return log


def _batches(search: JointNAS, count: int) -> JointNAS:
    """Does so many batches; a trial of each fails."""
    for _ in range(count):
        trials = search.ask()
        scores: list[float | None] = [problem.evaluate(t) for t in trials]
        search.tell(trials, [*scores[:-1], None])
    return search


def test_a_search_ends_the_same_from_each_batch_on(tmp_path: Path) -> None:
    wanted = problem.summary(_batches(problem.search(), 3).result())
    for count in (1, 2, 3):
        log = _logged(_batches(problem.search(), count), tmp_path / str(count))
        again = problem.search(storage=f"sqlite:///{tmp_path / f'{count}.db'}")
        again.restore(log.read())
        assert problem.summary(_batches(again, 3 - count).result()) == wanted


def test_only_whole_batches_are_written_and_each_once(tmp_path: Path) -> None:
    search = _batches(problem.search(), 1)
    trials = search.ask()
    search.tell(trials[:3], [1.0, 2.0, 3.0])
    _logged(search, tmp_path)
    first = tmp_path / "batch_000.jsonl.gz"
    assert list(tmp_path.iterdir()) == [first]
    content, made = first.read_bytes(), first.stat().st_mtime_ns
    search.tell(trials[3:], [0.0] * 5)
    _logged(search, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {first.name, "batch_001.jsonl.gz"}
    assert first.stat().st_mtime_ns == made
    _logged(search, tmp_path / "again")
    assert (tmp_path / "again" / first.name).read_bytes() == content


@pytest.mark.parametrize("stop", [17, 22])
def test_with_trials_ahead_the_order_is_in_it(tmp_path: Path, stop: int) -> None:
    search = problem.search(**AHEAD, executor=Shuffled(3, stop))
    with pytest.raises(Killed):
        search.run(problem.evaluate)
    logged = _logged(search, tmp_path / "log").read()
    assert logged.notes == search.order != {}
    again = problem.search(**AHEAD, executor=Shuffled(4))
    again.restore(logged)
    result = again.run(problem.evaluate)
    assert len(result.trials) == AHEAD["batch_size"] * AHEAD["iterations"] + AHEAD["finalists"]
    kept = repeatable(logged, AHEAD["batch_size"])
    assert len(kept.trials) >= stop // 3
    ids = {t.number: t.id for t in result.trials}
    assert all(ids[t.number] == t.id for t in kept.trials)
    # also of batches that were proposed and not finished
    proposed = [t for t in search.trials if t.batch <= len(kept.notes)]
    assert all(ids[t.number] == t.id for t in proposed)


@pytest.mark.parametrize("is_killed", [False, True], ids=["alone", "killed"])
def test_a_note_is_in_one_file(tmp_path: Path, is_killed: bool) -> None:
    log, trials, notes = BatchLog(tmp_path), list[Trial](), dict[str, Any]()
    for number in range(8):
        trial = Trial(f"{number}", number, number, {})
        trial.finish(1.0)
        trials.append(trial)
        if number != 4:  # finished before any further one was proposed
            notes |= {f"running_at_batch_{n}": [n] * 50 for n in range(1, number + 2)}
        log = BatchLog(tmp_path) if is_killed else log
        log.write(trials, {}, notes)
    heads = [_head(path)["notes"] for path in sorted(tmp_path.iterdir())]
    assert [list(found) for found in heads[:3]] == [[f"running_at_batch_{n}"] for n in (1, 2, 3)]
    assert sum(map(len, heads)) == len(notes) == 8
    assert log.read().notes == notes


def _head(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()).splitlines()[0])
    return found


def test_files_that_repeat_notes_are_read(tmp_path: Path) -> None:
    # as they were written at first
    notes = {"running_at_batch_1": [3], "running_at_batch_2": [5]}
    log = _logged(_batches(problem.search(), 2), tmp_path)
    for path in tmp_path.iterdir():
        _changed(path, 0, notes=notes)
    assert log.read().notes == notes


def test_a_batch_proposed_from_unfinished_ones_is_not_repeated() -> None:
    done = [Trial(f"{n}", n, n // 2, {}) for n in (0, 1, 2, 3, 6, 7)]
    notes = {"running_at_batch_1": [1], "running_at_batch_2": [2, 3], "running_at_batch_3": [4]}
    kept = repeatable(Logged({}, notes, done), 2)
    # batch 3 saw trial 5, which the log lacks
    assert list(kept.notes) == ["running_at_batch_1", "running_at_batch_2"]
    assert [t.number for t in kept.trials] == [0, 1, 2, 3]


def test_a_batch_that_an_exhausted_space_cut_short_keeps_what_follows() -> None:
    done = [Trial(f"{n}", n, min(n // 3, 2), {}) for n in range(6)]
    done = [*done[:4], Trial("4", 4, 2, {}), Trial("5", 5, 2, {})]  # batch 1 has trial 3 alone
    notes: dict[str, Any] = {"running_at_batch_1": [2], "running_at_batch_2": []}
    kept = repeatable(Logged({}, notes, done), 3)
    assert kept.notes == notes
    assert [t.number for t in kept.trials] == [0, 1, 2, 3, 4, 5]


def test_restoring_twice_is_restoring_once(tmp_path: Path) -> None:
    logged = _logged(_batches(problem.search(), 2), tmp_path / "log").read()
    url = f"sqlite:///{tmp_path / 'search.db'}"
    problem.search(storage=url).restore(logged)
    search = problem.search(storage=url)
    search.restore(logged)
    result = _batches(search, 1).result()
    assert len(result.trials) == len({t.number for t in result.trials}) == 19


def test_another_search_is_refused_with_the_settings_that_differ(tmp_path: Path) -> None:
    logged = _logged(_batches(problem.search(), 1), tmp_path).read()
    with pytest.raises(SearchError, match=r"other settings: iterations was 2, is 5; seed was 0"):
        problem.search(seed=1, iterations=5).restore(logged)


def test_a_refused_log_leaves_the_storage_as_it_was(tmp_path: Path) -> None:
    logged = _logged(_batches(problem.search(), 1), tmp_path / "log").read()
    url = f"sqlite:///{tmp_path / 'search.db'}"
    with pytest.raises(SearchError, match="seed was 0, is 1"):
        problem.search(storage=url, seed=1).restore(logged)
    problem.search(storage=url).restore(logged)


def test_a_log_beside_another_storage_is_refused(tmp_path: Path) -> None:
    search = _batches(problem.search(), 2)
    log = _logged(search, tmp_path)
    log.check(search.trials)
    with pytest.raises(SearchError, match=r"batch_001\.jsonl\.gz holds trials .* --restore"):
        log.check(_batches(problem.search(), 1).trials)
    for path in tmp_path.iterdir():
        path.unlink()
    log.check([])


def test_a_storage_with_other_trials_is_refused(tmp_path: Path) -> None:
    logged = _logged(_batches(problem.search(), 1), tmp_path).read()
    search = problem.search()
    trials = search.ask()
    search.tell(trials, [0.0] * len(trials))
    with pytest.raises(SearchError, match="another trial 0 than the log"):
        search.restore(logged)


def _changed(path: Path, line: int, **changes: Any) -> None:
    """Changes values of a line of a batch's file."""
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    lines[line] = json.dumps({**json.loads(lines[line]), **changes})
    path.write_bytes(gzip.compress("\n".join(lines).encode()))


@pytest.mark.parametrize(
    ("line", "changes", "message"),
    [
        (0, {"format": 9}, "its format is 9, this program reads 1"),
        (0, {"settings": 1}, "no config, settings and notes"),
        (0, {"notes": {"running_at_batch_1": 5}}, "none of the order of batches"),
        (1, {"batch": 7}, "trials of another batch"),
        (1, {"state": "running"}, "a trial that this program did not write"),
        (1, {"config": []}, "bad value of config"),
    ],
)
def test_files_that_are_no_log_are_named(
    tmp_path: Path, line: int, changes: dict[str, Any], message: str
) -> None:
    log = _logged(_batches(problem.search(), 1), tmp_path)
    _changed(tmp_path / "batch_000.jsonl.gz", line, **changes)
    with pytest.raises(SearchError, match=message):
        log.read()


def test_a_trial_under_the_id_of_another_is_refused(tmp_path: Path) -> None:
    log = _logged(_batches(problem.search(), 1), tmp_path)
    _changed(tmp_path / "batch_000.jsonl.gz", 1, id="../../elsewhere")
    with pytest.raises(SearchError, match="config of another id"):
        problem.search().restore(log.read())


@pytest.mark.parametrize("keep", [0, 10, -9])
def test_a_file_that_is_cut_off_is_named(tmp_path: Path, keep: int) -> None:
    log = _logged(_batches(problem.search(), 1), tmp_path)
    path = tmp_path / "batch_000.jsonl.gz"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(SearchError, match=r"batch_000\.jsonl\.gz is no log of a batch"):
        log.read()


def test_logs_of_two_searches_in_a_folder_are_refused(tmp_path: Path) -> None:
    log = _logged(_batches(problem.search(), 2), tmp_path)
    other = _logged(_batches(problem.search(seed=1), 2), tmp_path / "other")
    shutil.copy(other.path / "batch_001.jsonl.gz", tmp_path)
    with pytest.raises(SearchError, match=r"batch_001\.jsonl\.gz is of another search"):
        log.read()


def test_a_folder_without_a_log(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match=r"holds no log of a search"):
        BatchLog(tmp_path).read()


def test_beyond_a_missing_file_nothing_counts_nor_does_a_copy(tmp_path: Path) -> None:
    log = _logged(_batches(problem.search(), 3), tmp_path)
    shutil.copy(tmp_path / "batch_000.jsonl.gz", tmp_path / "batch_000 (1).jsonl.gz")
    (tmp_path / "batch_001.jsonl.gz").unlink()
    assert [t.number for t in log.read().trials] == list(range(8))


def test_a_bad_trial_is_told_with_its_file(tmp_path: Path) -> None:
    log = _logged(_batches(problem.search(), 1), tmp_path)
    _changed(tmp_path / "batch_000.jsonl.gz", 2, state="running")
    with pytest.raises(SearchError, match=r"batch_000\.jsonl\.gz is no log of a batch: the log"):
        log.read()
