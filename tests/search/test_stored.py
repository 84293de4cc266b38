"""Stored trials that the search did not write: doubled, negative, huge and forged ones."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fbnetv3.search import SearchError, Trial
from fbnetv3.search.storage.optuna_store import OptunaStore
from fbnetv3.search.trial import trial_to_json
from tests.mutations import assert_refused_or_read
from tests.search import problem

NAN, HUGE = float("nan"), 10**400
SMALL: dict[str, Any] = {"batch_size": 2, "iterations": 1, "finalists": 1, "pool_size": 64}
Change = Callable[[dict[str, Any], dict[str, Any]], Any]


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Returns the content of the storage of a finished search."""
    path = tmp_path_factory.mktemp("storage") / "search.db"
    problem.search(storage=f"sqlite:///{path}", **SMALL).run(problem.evaluate)
    return path.read_bytes()


def _set(**values: Any) -> Change:
    return lambda first, second: first.update(values)


def _double(first: dict[str, Any], second: dict[str, Any]) -> None:
    second.update(first)


def _same_number(first: dict[str, Any], second: dict[str, Any]) -> None:
    second["number"] = first["number"]


def _same_candidate(first: dict[str, Any], second: dict[str, Any]) -> None:
    second.update(id=first["id"], config=first["config"])


def _other_config(first: dict[str, Any], second: dict[str, Any]) -> None:
    first["config"] = second["config"]


def _cheap(first: dict[str, Any], second: dict[str, Any]) -> None:
    first["statistics"]["macs"] = 1.0


FORGED: list[Change] = [
    *(_double, _same_number, _same_candidate, _other_config, _cheap),
    *(_set(batch=x) for x in (-1, 2, 10**9, HUGE, 0.5, True, None, "0")),
    *(_set(number=x) for x in (-1, 3, 10**9, HUGE, 0.0, True)),
    *(_set(statistics=x) for x in ({}, {"macs": 0}, {"macs": -5}, {"macs": NAN}, {"macs": HUGE})),
    *(_set(predicted=x) for x in (HUGE, NAN, float("inf"), "1", True)),
    *(_set(score=x, final_score=x) for x in (HUGE, NAN, None, True, "1")),
    *(_set(final_score=x) for x in (None, 99.0)),
    *(_set(max_epochs=x) for x in (-1, 2**31, HUGE, 1.5, True)),
    *(_set(stage=x) for x in ("fine", "", 5)),
    *(_set(state=x) for x in ("running", "failed", "", None)),
    *(_set(reports=x) for x in ({"x": 1}, {"-1": 1}, {"1": HUGE}, {"1": None}, {HUGE: 1.0}, [])),
    *(_set(config=x) for x in ({}, {"depth": HUGE}, {"depth": []}, {"\n": 1}, [])),
    *(_set(id=x) for x in ("", "../x", 5, "\x1b[2J")),
]


def _change(path: Path, change: Change) -> None:
    """Changes the first two trials of a storage."""
    with closing(sqlite3.connect(path)) as database:
        query = (
            "SELECT trial_user_attribute_id, value_json FROM trial_user_attributes "
            "WHERE key = 'trial' ORDER BY 1"
        )
        rows = database.execute(query).fetchall()
        trials = [json.loads(json.loads(value)) for _, value in rows]
        change(trials[0], trials[1])
        for (row, _), trial in zip(rows, trials, strict=True):
            update = "UPDATE trial_user_attributes SET value_json = ? WHERE "
            parameters = (json.dumps(json.dumps(trial)), row)
            database.execute(f"{update}trial_user_attribute_id = ?", parameters)
        database.commit()


@pytest.mark.parametrize("change", FORGED)
def test_trials_that_the_search_did_not_write(
    change: Change, content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "search.db"
    path.write_bytes(content)
    _change(path, change)
    with pytest.raises(SearchError) as caught:
        problem.search(storage=f"sqlite:///{path}", read_only=True, **SMALL).result()
    assert str(caught.value).isprintable()
    assert "storage" in str(caught.value)


def test_stored_trials_that_stopped_at_epoch_0_are_read(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "search.db"
    path.write_bytes(content)
    _change(path, _set(max_epochs=0))  # as earlier versions wrote them
    search = problem.search(storage=f"sqlite:///{path}", **SMALL)
    assert search.ask() == []
    assert [t.max_epochs for t in search.result().trials] == [0, None, None]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE trials SET state = 'OTHER'",
        "UPDATE trials SET datetime_start = 'x'",
        "UPDATE trials SET number = 'x'",
        "UPDATE trial_user_attributes SET value_json = '{'",
        "UPDATE trial_user_attributes SET value_json = x'ff' WHERE key = 'trial'",
        "UPDATE trial_user_attributes SET value_json = '5' WHERE key = 'trial'",
        "UPDATE trial_user_attributes SET value_json = 'null' WHERE key = 'trial'",
        "UPDATE trial_params SET distribution_json = '{}'",
        "UPDATE trial_params SET param_value = 1e308",
        "UPDATE trial_values SET value_type = 'OTHER'",
        "UPDATE study_user_attributes SET value_json = '[1]'",
        "UPDATE study_user_attributes SET value_json = '{'",
        "UPDATE study_directions SET direction = 'OTHER'",
        "DELETE FROM study_directions",
        "UPDATE version_info SET schema_version = 99",
        "DELETE FROM alembic_version",
    ],
)
@pytest.mark.parametrize("read_only", [True, False])
def test_rows_that_optuna_did_not_write(
    statement: str, read_only: bool, content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "search.db"
    path.write_bytes(content)
    with closing(sqlite3.connect(path)) as database:
        database.execute(statement)
        database.commit()
    url = f"sqlite:///{path}"
    assert_refused_or_read(
        lambda: problem.search(storage=url, read_only=read_only, **SMALL).result(), statement
    )


def test_reading_leaves_the_storage_as_it_is(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "search.db"
    path.write_bytes(content)
    search = problem.search(storage=f"sqlite:///{path}", read_only=True, **SMALL)
    result = search.result()
    assert len(result.trials) == 3  # a batch of two, and a finalist
    assert path.read_bytes() == content
    assert [file.name for file in tmp_path.iterdir()] == ["search.db"]


def test_results_of_all_kinds_are_accepted(tmp_path: Path) -> None:
    """Failed trials, NaN reports and whole scores are what searches store."""
    store = OptunaStore(f"sqlite:///{tmp_path / 'x.db'}", problem.space())
    failed, whole = (Trial(f"id{i}", i, 0, problem.space().configs(_ZERO)[0]) for i in range(2))
    failed.report(0, NAN)
    failed.finish(None, "out of memory")
    whole.report(1, float("-inf"))
    whole.finish(3)
    for trial in (failed, whole):
        store.add(trial)
    assert [trial_to_json(t) for t in store.load()] == [trial_to_json(t) for t in (failed, whole)]


_ZERO = problem.space().levels(
    [
        dict.fromkeys(problem.WIDTHS, 8)
        | {"depth": 1, "kernel": 3, "lr": 1e-4, "decay": 0.0, "optim": "sgd"}
    ]
)
