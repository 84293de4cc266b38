"""Reads the scores that a search starts with, from an earlier search or a table."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fbnetv3.errors import did_you_mean
from fbnetv3.io import read_file
from fbnetv3.search.checks import real_from_text
from fbnetv3.search.direction import MAXIMIZE
from fbnetv3.search.errors import SearchError
from fbnetv3.search.outcome import score_of, short
from fbnetv3.search.space.space import SearchSpace
from fbnetv3.search.storage.earlier_trials import (
    EarlierTrial,
    StoredStudy,
    config_in_space,
    is_csv_of_study,
    is_study,
    storage_of_folder,
    trials_of_csv,
    trials_of_storage,
    trials_of_study,
)
from fbnetv3.search.trial import Trial

if TYPE_CHECKING:
    import optuna

    WarmStart = (
        str
        | os.PathLike[str]
        | StoredStudy
        | Iterable[Trial | tuple[Mapping[str, Any], float]]
        | optuna.Study
    )


@dataclass(frozen=True)
class WarmStarted:
    """The trials that a search starts from, and the numbers of trials left out.

    Attributes:
        trials: Complete trials, one per candidate. Their ``batch`` is -1: before the search.
        source: Description of the source.
        count: Number of trials that the source has.
        left_out: Number of trials that were not taken, by the reason.
    """

    trials: list[Trial]
    source: str = ""
    count: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = [f"{number} {reason}" for reason, number in self.left_out.items()]
        left_out = f"; not taken: {', '.join(parts)}" if parts else ""
        return f"warm start from {self.source}: {len(self.trials)} of {self.count} trials{left_out}"


def read_warm_start(
    space: SearchSpace, source: WarmStart, direction: str = MAXIMIZE
) -> WarmStarted:
    """Returns complete trials of batch -1, one per candidate, and the number of trials left out.

    If a candidate has several scores, the last one counts. Trials without a score are left out, and
    so are trials of a study whose values are not in the space. The cells of a csv file are
    converted to the type of their variable; see :meth:`Parameter.read`.

    Args:
        space: Space that contains the configs.
        source: Trials; (config, score) pairs; a study of Optuna, as an object, as
            :class:`StoredStudy`, as the URL of a storage with one study, or as the csv of
            ``study.trials_dataframe()``; the folder of a run; or the path of a csv file with a
            column for each variable and a column ``score``.
        direction: Direction of the search: ``maximize`` or ``minimize``.

    Raises:
        SearchError: A source cannot be read; a config of a trial, pair or csv file is not in the
            space, or its score is not finite; a csv file has missing, unknown or duplicate
            columns; or no trial of a study can be taken.
    """
    if is_study(source):
        earlier = trials_of_study(source, direction)
        return _of_study(space, earlier, f"the study {short(source.study_name)}")
    if isinstance(source, str) and "://" in source:
        source = StoredStudy(source)
    if isinstance(source, StoredStudy):
        return _of_stored_study(space, source, direction)
    if isinstance(source, str | os.PathLike):
        return _of_path(space, Path(source), direction)
    items = _items(source)
    pairs = [_pair(item) for item in items if not _has_no_score(item)]
    count = len(items) - len(pairs)
    left_out = {"without a score": count} if count else {}
    return _taken(space, pairs, "trials", len(items), left_out)


def _of_stored_study(space: SearchSpace, source: StoredStudy, direction: str) -> WarmStarted:
    """Returns the trials of a study in a storage, or in the folder of a run."""
    path = None if "://" in source.storage else Path(source.storage)
    stored = source if path is None else StoredStudy(storage_of_folder(path), source.study)
    earlier = trials_of_storage(stored, direction)
    name = source.storage if path is not None else _without_password(source.storage)
    return _of_study(space, earlier, name if source.study is None else f"{name}, {source.study}")


def _without_password(url: str) -> str:
    from fbnetv3.search.storage.database import without_password  # the module needs SQLAlchemy

    return without_password(url)


def _of_path(space: SearchSpace, path: Path, direction: str) -> WarmStarted:
    """Returns the trials of a csv file, or of the folder of a run."""
    if path.is_dir():
        return _of_stored_study(space, StoredStudy(str(path)), direction)
    header, table = _read_csv(path)
    if is_csv_of_study(header):
        earlier = trials_of_csv(header, (row for _, row in table), str(path))
        return _of_study(space, earlier, str(path))
    _check_header(space, header, path)
    pairs = [_read_row(space, header, row, f"{path} line {line}") for line, row in table]
    return _taken(space, pairs, str(path), len(pairs), {})


def _of_study(space: SearchSpace, earlier: Sequence[EarlierTrial], source: str) -> WarmStarted:
    """Returns the trials of a study whose values are in the space.

    Raises:
        SearchError: No trial of the study can be taken.
    """
    pairs: list[tuple[Mapping[str, Any], float]] = []
    left_out: Counter[str] = Counter()
    for trial in earlier:
        config, problem = config_in_space(space, trial.values)
        if trial.problem or problem or trial.score is None:
            left_out[trial.problem or problem] += 1
        else:
            pairs.append((config, trial.score))
    if not pairs:
        parts = ", ".join(f"{number} {reason}" for reason, number in left_out.items())
        raise SearchError(
            f"warm start: none of the {len(earlier)} trials of {source} can be taken"
            f"{f': {parts}' if parts else ''}; give another source, or none"
        )
    return _taken(space, pairs, source, len(earlier), left_out)


def _taken(
    space: SearchSpace,
    pairs: Sequence[tuple[Mapping[str, Any], float]],
    source: str,
    count: int,
    left_out: Mapping[str, int],
) -> WarmStarted:
    """Returns a trial for each candidate, with its last score."""
    trials: dict[str, Trial] = {}
    for config, score in pairs:
        try:
            levels = space.levels([config])
        except SearchError as error:
            raise SearchError(f"warm start: {error}") from None
        key = space.ids(levels)[0]
        trial = Trial(key, 0, -1, space.configs(levels)[0])
        trial.finish(score)
        trials[key] = trial
    for number, trial in enumerate(trials.values()):
        trial.number = number - len(trials)  # negative: before the trials of this search
    repeated = len(pairs) - len(trials)
    if repeated:
        left_out = {**left_out, "repeated": repeated}
    return WarmStarted(list(trials.values()), source, count, dict(left_out))


def _has_no_score(item: Any) -> bool:
    return isinstance(item, Trial) and item.score is None


def _items(source: Any) -> list[Any]:
    if isinstance(source, Mapping) or not isinstance(source, Iterable):
        raise SearchError(
            f"warm_start={short(source)} is not allowed; allowed: trials, pairs such as "
            "[({'lr': 0.1}, 0.93)], a study of Optuna, the URL of a storage, the folder of a run, "
            "or the path of a csv file"
        )
    return list(source)


def _pair(item: Any) -> tuple[Mapping[str, Any], float]:
    """Returns config and score of a trial or of a pair."""
    if isinstance(item, Trial):
        config, score = item.config, item.score
    elif isinstance(item, list | tuple) and len(item) == 2:
        config, score = item
    else:
        raise SearchError(
            f"warm start: {short(item)} is neither a trial nor a pair such as ({{'lr': 0.1}}, 0.93)"
        )
    value, _ = score_of(score)
    if value is None:
        raise SearchError(
            f"warm start: the score {short(score)} of {short(config)} is not a finite number; "
            "leave it out"
        )
    return config, value


def _read_csv(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Returns the header of a csv file, and the line number and the cells of each row with text."""
    try:
        # utf-8-sig: spreadsheet programs write a byte-order mark before the first name.
        text = read_file(path, "warm start").decode("utf-8-sig")
        rows = csv.reader(io.StringIO(text, newline=""), strict=True)
        header = [name.strip() for name in next(rows, [])]
        table = [(rows.line_num, row) for row in rows if any(map(str.strip, row))]
    except OSError as error:
        raise SearchError(f"warm start: cannot read {path}: {error.strerror or error}") from error
    except (csv.Error, ValueError) as error:
        raise SearchError(
            f"warm start: {path} is not a csv file ({error}); give a table as plain text"
        ) from error
    return header, table


def _check_header(space: SearchSpace, header: list[str], path: Path) -> None:
    if "score" not in header:
        raise SearchError(
            f"warm start: {path} has no column 'score'; its columns are "
            f"{short(', '.join(header)) if header else 'none'}"
        )
    for name in header:
        if name != "score" and name not in space.names:
            raise SearchError(
                f"warm start: {path}: the space has no variable {short(name)}"
                f"{did_you_mean(name, space.names)}; remove or rename the column"
            )
        if header.count(name) > 1:
            raise SearchError(f"warm start: {path} has two columns {name!r}; remove one")


def _read_row(
    space: SearchSpace, header: list[str], row: list[str], where: str
) -> tuple[Mapping[str, Any], float]:
    """Returns config and score of a row; empty cells (of inactive variables) are left out."""
    if len(row) > len(header):
        raise SearchError(
            f"warm start: {where} has more cells than the header has columns; correct it"
        )
    cells = dict(zip(header, row, strict=False))
    text = cells.pop("score", "")
    score = real_from_text(text)
    if score is None:
        raise SearchError(f"warm start: {where}: the score {short(text)} is not a number")
    config: dict[str, Any] = {}
    for name, cell in cells.items():
        try:
            config[name] = space[name].read(cell)
        except SearchError as error:
            if cell.strip():
                raise SearchError(f"warm start: {where}: {error}") from None
    return config, score
