"""Reads trials of Optuna's studies, which this project or another program wrote."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

from fbnetv3.errors import FBNetError, data_errors, first_line
from fbnetv3.requires import require
from fbnetv3.search.checks import real_from_text
from fbnetv3.search.direction import MAXIMIZE, MINIMIZE
from fbnetv3.search.errors import SearchError
from fbnetv3.search.outcome import score_of, short
from fbnetv3.search.space.space import SearchSpace
from fbnetv3.search.trial import trial_from_json

if TYPE_CHECKING:
    import optuna

_PARAMS = "params_"
"""Prefix of the variables' columns in the csv of ``study.trials_dataframe()``."""
_UNUSED_STATES = {
    "FAIL": "failed",
    "PRUNED": "pruned",
    "RUNNING": "without a result",
    "WAITING": "without a result",
}
"""Reason for leaving out a trial, by the trial's state in Optuna."""


@dataclass(frozen=True)
class StoredStudy:
    """A study in an Optuna storage, whose trials a search starts from.

    Attributes:
        storage: URL of the storage, such as ``sqlite:///search.db``, or the folder of a run.
        study: Name of the study; None: the only one of the storage.
    """

    storage: str
    study: str | None = None


class EarlierTrial(NamedTuple):
    """A trial of an earlier study, before it is compared with a space.

    Attributes:
        values: Value of each variable by name; strings may stand for values of other types.
        score: Score; None: the trial has no score.
        problem: Why a search cannot start from the trial, such as ``failed``; "" if it can.
    """

    values: Mapping[str, Any]
    score: float | None
    problem: str = ""


def is_study(source: object) -> TypeGuard[optuna.Study]:
    """Returns whether a value is a study of Optuna, without importing Optuna."""
    optuna = sys.modules.get("optuna")
    return optuna is not None and isinstance(source, optuna.study.Study)


def trials_of_study(study: optuna.Study, direction: str) -> list[EarlierTrial]:
    """Returns the trials of a study.

    Args:
        study: Study with one objective.
        direction: Direction of the search: ``maximize`` or ``minimize``.

    Raises:
        SearchError: The study has another direction, or several objectives.
    """
    _check_directions([d.name.lower() for d in study.directions], direction, study.study_name)
    return [_of_frozen(trial) for trial in study.get_trials(deepcopy=False)]


def trials_of_storage(source: StoredStudy, direction: str) -> list[EarlierTrial]:
    """Returns the trials of a stored study; a SQLite file, perhaps untrusted, is read from a copy.

    Args:
        source: Study whose storage is a URL.
        direction: Direction of the search: ``maximize`` or ``minimize``.

    Raises:
        SearchError: The storage cannot be read, does not have the study, or has several and none is
            named; or the study has another direction or several objectives.
        MissingPackageError: Optuna or SQLAlchemy is not installed.
    """
    for package in ("optuna", "sqlalchemy"):
        require(package, "search")
    # imported late: a search in memory needs neither package
    from fbnetv3.search.storage.database import is_missing, snapshot, without_password

    name = without_password(source.storage)
    if is_missing(source.storage):
        raise SearchError(f"warm start: the storage {name} does not exist; give another one")
    with _storage_errors(name), snapshot(source.storage) as copy:
        return trials_of_study(_load(copy, source.study, name), direction)


def storage_of_folder(folder: Path) -> str:
    """Returns the URL of the storage in the folder of a run.

    Raises:
        SearchError: The folder holds no storage.
    """
    database = folder / "search.db"
    if not database.is_file():
        raise SearchError(
            f"warm start: {folder} holds no search.db; give the folder of a run, the URL of its "
            "storage, or a csv file"
        )
    from fbnetv3.search.storage.database import sqlite_url

    return sqlite_url(os.path.abspath(database))


def _load(url: str, study: str | None, name: str) -> optuna.Study:
    """Returns a study of a storage."""
    import optuna

    from fbnetv3.search.storage.database import open_storage

    storage = open_storage(url)
    names = optuna.study.get_all_study_names(storage)
    chosen = names[0] if study is None and len(names) == 1 else study
    if not names:
        raise SearchError(f"warm start: the storage {name} has no study; give another one")
    if chosen not in names:
        what = "several studies" if study is None else f"no study {study!r}"
        raise SearchError(
            f"warm start: the storage {name} has {what}; it has "
            f"{', '.join(map(short, sorted(names)[:10]))}; name one of them "
            "(SEARCH.WARM_START_STUDY, StoredStudy(storage, study))"
        )
    return optuna.load_study(study_name=chosen, storage=storage)


@contextmanager
def _storage_errors(name: str) -> Iterator[None]:
    """Turns an error of a database into a SearchError with a message on one line."""
    try:
        with data_errors(SearchError, f"the content of storage {name}"):
            yield
    except FBNetError:
        raise
    except Exception as error:  # database drivers may raise anything
        raise SearchError(f"warm start: cannot read storage {name}: {first_line(error)}") from error


def _check_directions(directions: Sequence[str], direction: str, study: str) -> None:
    if len(directions) > 1:
        raise SearchError(
            f"warm start: the study {short(study)} has {len(directions)} objectives; allowed: "
            "studies with one"
        )
    expected = MINIMIZE if directions == ["minimize"] else MAXIMIZE
    if expected != direction:
        raise SearchError(
            f"warm start: the study {short(study)} has the direction {expected!r}, but the search "
            f"has direction={direction!r}; negate its values, and give them as (config, score) "
            "pairs"
        )


def _of_frozen(trial: optuna.trial.FrozenTrial) -> EarlierTrial:
    problem = _UNUSED_STATES.get(trial.state.name, "")
    if not problem and "trial" in trial.user_attrs:  # written by a search of this project
        written = trial_from_json(trial.user_attrs["trial"])
        return EarlierTrial(written.config, written.final_score)
    score, _ = (None, "") if problem else score_of(trial.value)
    if score is None:
        problem = problem or "without a finite score"
    return EarlierTrial(trial.params, score, problem)


def is_csv_of_study(header: Sequence[str]) -> bool:
    """Returns whether columns are those of ``study.trials_dataframe().to_csv()``."""
    return "state" in header and any(name.startswith(_PARAMS) for name in header)


def trials_of_csv(
    header: Sequence[str], rows: Iterable[Sequence[str]], where: str
) -> list[EarlierTrial]:
    """Returns the trials of the csv of a study.

    Args:
        header: Names of the columns.
        rows: Cells of each row.
        where: Name of the file, for messages.

    Raises:
        SearchError: The study has several objectives, or a column is missing or occurs twice.
    """
    if any(name.startswith("values_") for name in header):
        raise SearchError(f"warm start: {where} has several objectives; allowed: studies with one")
    if "value" not in header or len({*header}) < len(header):
        raise SearchError(
            f"warm start: {where} is no csv of study.trials_dataframe(): the column 'value' is "
            "missing, or a column occurs twice"
        )
    trials = []
    for row in rows:
        cells = dict(zip(header, row, strict=False))
        values = {
            name.removeprefix(_PARAMS): cell
            for name, cell in cells.items()
            if name.startswith(_PARAMS) and cell.strip()
        }
        problem = _UNUSED_STATES.get(cells.get("state", ""), "")
        score = None if problem else real_from_text(cells.get("value", ""))
        if score is None:
            problem = problem or "without a finite score"
        trials.append(EarlierTrial(values, score, problem))
    return trials


def config_in_space(space: SearchSpace, values: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Returns the values of an earlier trial as a config of a space.

    A string is parsed by the type of its variable, unless the variable has this string as a value.

    Returns:
        The config and "", or {} and the reason why the values are no config of the space.
    """
    names = {parameter.name for parameter in space.parameters}
    unknown = sorted({*values} - names)
    required = {p.name for p in space.parameters if not p.active_if}
    missing = sorted(required - {*values})
    if missing:
        return {}, _without_values(missing)
    if unknown:
        return {}, f"with {', '.join(map(short, unknown[:5]))}, which the space lacks"
    config: dict[str, Any] = {}
    for name, value in values.items():
        try:
            config[name] = _read(space, name, value)
        except SearchError:
            return {}, f"with a value of {name} that is not in the space"
    (active,) = space.active(space.levels([config]))
    missing = sorted({name for name, on in zip(space.names, active, strict=True) if on} - {*config})
    return ({}, _without_values(missing)) if missing else (config, "")


def _without_values(names: Sequence[str]) -> str:
    return f"without a value of {', '.join(names[:5])}"


def _read(space: SearchSpace, name: str, value: Any) -> Any:
    parameter = space[name]
    try:
        return parameter.value(parameter.level(value))
    except SearchError:
        if not isinstance(value, str):
            raise
        return parameter.read(value)
