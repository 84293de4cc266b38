"""A search continues from its log alone after its machine was lost."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from fbnetv3.search import JointNAS, SearchError, Trial
from fbnetv3.search.storage.batch_log import BatchLog, LoggedSearch, repeatable
from tests.search import problem
from tests.search.test_ahead import AHEAD, Killed, Shuffled

pytestmark = pytest.mark.usefixtures("short_training")


def _never(trial: Trial) -> float:
    pytest.fail("a finished trial was evaluated again")


def _write_log(search: JointNAS, folder: Path) -> BatchLog:
    log = BatchLog(folder)
    log.write(search.trials, search.settings, search.order)
    return log


def _run_batches(search: JointNAS, count: int) -> JointNAS:
    """Evaluates a number of batches; the last trial of each fails."""
    for _ in range(count):
        trials = search.ask()
        scores: list[float | None] = [problem.evaluate(t) for t in trials]
        search.tell(trials, [*scores[:-1], None])
    return search


def test_a_search_restored_after_any_batch_ends_the_same(tmp_path: Path) -> None:
    expected = problem.summary(_run_batches(problem.search(), 3).result())
    for count in (1, 2, 3):
        log = _write_log(_run_batches(problem.search(), count), tmp_path / str(count))
        again = problem.search(storage=f"sqlite:///{tmp_path / f'{count}.db'}")
        again.restore(log.read())
        assert problem.summary(_run_batches(again, 3 - count).result()) == expected


def test_only_finished_batches_are_written_and_each_once(tmp_path: Path) -> None:
    search = _run_batches(problem.search(), 1)
    trials = search.ask()
    search.tell(trials[:3], [1.0, 2.0, 3.0])
    _write_log(search, tmp_path)
    first = tmp_path / "batch_000.jsonl.gz"
    assert list(tmp_path.iterdir()) == [first]
    content, made = first.read_bytes(), first.stat().st_mtime_ns
    search.tell(trials[3:], [0.0] * 5)
    _write_log(search, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {first.name, "batch_001.jsonl.gz"}
    assert first.stat().st_mtime_ns == made
    _write_log(search, tmp_path / "again")
    assert (tmp_path / "again" / first.name).read_bytes() == content


@pytest.mark.parametrize("stop", [17, 22])
def test_the_order_of_a_search_with_trials_ahead_is_logged(tmp_path: Path, stop: int) -> None:
    search = problem.search(**AHEAD, executor=Shuffled(3, stop))
    with pytest.raises(Killed):
        search.run(problem.evaluate)
    logged = _write_log(search, tmp_path / "log").read()
    assert logged.order == search.order != {}
    again = problem.search(**AHEAD, executor=Shuffled(4))
    again.restore(logged)
    result = again.run(problem.evaluate)
    assert len(result.trials) == AHEAD["batch_size"] * AHEAD["iterations"] + AHEAD["finalists"]
    part = repeatable(logged, AHEAD["batch_size"])
    assert len(part.trials) >= stop // 3
    ids = {t.number: t.id for t in result.trials}
    assert all(ids[t.number] == t.id for t in part.trials)
    # batches that were proposed but had not finished are included
    proposed = [t for t in search.trials if t.batch <= len(part.order)]
    assert all(ids[t.number] == t.id for t in proposed)


@pytest.mark.parametrize("is_killed", [False, True], ids=["undisturbed", "killed"])
def test_each_part_of_the_order_is_in_one_file(tmp_path: Path, is_killed: bool) -> None:
    log, trials, order = BatchLog(tmp_path), list[Trial](), dict[str, Any]()
    for number in range(8):
        trial = Trial(f"{number}", number, number, {})
        trial.finish(1.0)
        trials.append(trial)
        if number != 4:  # batch 4 finishes before another one is proposed
            order |= {f"running_at_batch_{n}": [n] * 50 for n in range(1, number + 2)}
        log = BatchLog(tmp_path) if is_killed else log
        log.write(trials, {}, order)
    heads = [_head(path)["notes"] for path in sorted(tmp_path.iterdir())]
    assert [list(head) for head in heads[:3]] == [[f"running_at_batch_{n}"] for n in (1, 2, 3)]
    assert sum(map(len, heads)) == len(order) == 8
    assert log.read().order == order


def _head(path: Path) -> dict[str, Any]:
    """Returns the first line of a file."""
    head: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()).splitlines()[0])
    return head


def test_older_files_that_repeat_the_order_can_be_read(tmp_path: Path) -> None:
    order = {"running_at_batch_1": [3], "running_at_batch_2": [5]}
    log = _write_log(_run_batches(problem.search(), 2), tmp_path)
    for path in tmp_path.iterdir():
        _change(path, 0, notes=order)
    assert log.read().order == order


def test_a_batch_proposed_from_unlogged_trials_is_not_repeated() -> None:
    trials = [Trial(f"{n}", n, n // 2, {}) for n in (0, 1, 2, 3, 6, 7)]
    order = {"running_at_batch_1": [1], "running_at_batch_2": [2, 3], "running_at_batch_3": [4]}
    part = repeatable(LoggedSearch({}, order, trials), 2)
    # batch 3 was proposed from trial 5, which the log lacks
    assert list(part.order) == ["running_at_batch_1", "running_at_batch_2"]
    assert [t.number for t in part.trials] == [0, 1, 2, 3]


def test_batches_after_one_that_an_exhausted_space_cut_short_are_repeated() -> None:
    batches = (0, 0, 0, 1, 2, 2)  # batch 1 has one trial instead of three
    trials = [Trial(f"{n}", n, batch, {}) for n, batch in enumerate(batches)]
    order: dict[str, Any] = {"running_at_batch_1": [2], "running_at_batch_2": []}
    part = repeatable(LoggedSearch({}, order, trials), 3)
    assert part.order == order
    assert [t.number for t in part.trials] == [0, 1, 2, 3, 4, 5]


def test_a_log_can_be_restored_twice(tmp_path: Path) -> None:
    logged = _write_log(_run_batches(problem.search(), 2), tmp_path / "log").read()
    url = f"sqlite:///{tmp_path / 'search.db'}"
    problem.search(storage=url).restore(logged)
    search = problem.search(storage=url)
    search.restore(logged)
    result = _run_batches(search, 1).result()
    assert len(result.trials) == len({t.number for t in result.trials}) == 19


def test_the_log_of_another_search_is_refused_with_the_settings_that_differ(tmp_path: Path) -> None:
    logged = _write_log(_run_batches(problem.search(), 1), tmp_path).read()
    with pytest.raises(SearchError, match=r"other settings: pool_size was 512, is 99; seed was 0"):
        problem.search(seed=1, pool_size=99).restore(logged)


def test_a_refused_log_leaves_the_storage_as_it_was(tmp_path: Path) -> None:
    logged = _write_log(_run_batches(problem.search(), 1), tmp_path / "log").read()
    url = f"sqlite:///{tmp_path / 'search.db'}"
    with pytest.raises(SearchError, match="seed was 0, is 1"):
        problem.search(storage=url, seed=1).restore(logged)
    problem.search(storage=url).restore(logged)


def test_a_log_beside_another_storage_is_refused(tmp_path: Path) -> None:
    search = _run_batches(problem.search(), 2)
    log = _write_log(search, tmp_path)
    log.check(search.trials)
    with pytest.raises(SearchError, match=r"batch_001\.jsonl\.gz holds trials .* --restore"):
        log.check(_run_batches(problem.search(), 1).trials)
    for path in tmp_path.iterdir():
        path.unlink()
    log.check([])


def test_a_storage_with_other_trials_is_refused(tmp_path: Path) -> None:
    logged = _write_log(_run_batches(problem.search(), 1), tmp_path).read()
    search = problem.search()
    trials = search.ask()
    search.tell(trials, [0.0] * len(trials))
    with pytest.raises(SearchError, match="trial 0 of the storage differs"):
        search.restore(logged)


def _change(path: Path, line: int, **changes: Any) -> None:
    """Changes values in a line of a file."""
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    lines[line] = json.dumps({**json.loads(lines[line]), **changes})
    path.write_bytes(gzip.compress("\n".join(lines).encode()))


@pytest.mark.parametrize(
    ("line", "changes", "message"),
    [
        (0, {"format": 9}, "its format is 9, but this program reads 1"),
        (0, {"settings": 1}, "a part of its first line is not a mapping"),
        (0, {"notes": {"running_at_batch_1": 5}}, "does not describe the order of batches"),
        (1, {"batch": 7}, "trials of another batch"),
        (1, {"state": "running"}, "a trial that this program did not write"),
        (1, {"config": []}, "bad value of config"),
    ],
)
def test_files_of_another_format_are_refused_by_name(
    tmp_path: Path, line: int, changes: dict[str, Any], message: str
) -> None:
    log = _write_log(_run_batches(problem.search(), 1), tmp_path)
    _change(tmp_path / "batch_000.jsonl.gz", line, **changes)
    with pytest.raises(SearchError, match=message):
        log.read()


def test_a_trial_with_the_id_of_another_config_is_refused(tmp_path: Path) -> None:
    log = _write_log(_run_batches(problem.search(), 1), tmp_path)
    _change(tmp_path / "batch_000.jsonl.gz", 1, id="../../elsewhere")
    with pytest.raises(SearchError, match="does not match its id"):
        problem.search().restore(log.read())


@pytest.mark.parametrize("keep", [0, 10, -9])
def test_a_truncated_file_is_refused_by_name(tmp_path: Path, keep: int) -> None:
    log = _write_log(_run_batches(problem.search(), 1), tmp_path)
    path = tmp_path / "batch_000.jsonl.gz"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(SearchError, match=r"batch_000\.jsonl\.gz is not a batch of a log"):
        log.read()


def test_logs_of_two_searches_in_a_folder_are_refused(tmp_path: Path) -> None:
    log = _write_log(_run_batches(problem.search(), 2), tmp_path)
    other = _write_log(_run_batches(problem.search(seed=1), 2), tmp_path / "other")
    shutil.copy(other.path / "batch_001.jsonl.gz", tmp_path)
    with pytest.raises(SearchError, match=r"batch_001\.jsonl\.gz and batch_000\.jsonl\.gz belong"):
        log.read()


def test_files_without_an_identity_belong_to_the_search_of_the_others(tmp_path: Path) -> None:
    search, log = _run_batches(problem.search(), 2), BatchLog(tmp_path)
    first = [trial for trial in search.trials if trial.batch == 0]
    log.write(first, search.settings, search.order)
    log.write(search.trials, search.settings, search.order, identity=search.identity)
    assert log.read().identity == search.identity
    assert len(log.read().trials) == len(search.trials)
    (tmp_path / "batch_000.jsonl.gz").unlink()
    log.write(first, search.settings, search.order, identity={"order": []})
    with pytest.raises(SearchError, match="belong to different searches"):
        log.read()


def test_a_folder_without_a_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match=r"holds no log of a search"):
        BatchLog(tmp_path).read()


def test_batches_after_a_missing_file_are_ignored_and_so_is_a_copy(tmp_path: Path) -> None:
    log = _write_log(_run_batches(problem.search(), 3), tmp_path)
    shutil.copy(tmp_path / "batch_000.jsonl.gz", tmp_path / "batch_000 (1).jsonl.gz")
    (tmp_path / "batch_001.jsonl.gz").unlink()
    assert [t.number for t in log.read().trials] == list(range(8))


def test_a_bad_trial_is_reported_with_its_file(tmp_path: Path) -> None:
    log = _write_log(_run_batches(problem.search(), 1), tmp_path)
    _change(tmp_path / "batch_000.jsonl.gz", 2, state="running")
    with pytest.raises(SearchError, match=r"batch_000\.jsonl\.gz is not a batch of a log: the log"):
        log.read()
