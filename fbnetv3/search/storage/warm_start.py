"""Reads the scores that a search starts with, from an earlier search or a table."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fbnetv3.errors import did_you_mean
from fbnetv3.io import read_file
from fbnetv3.search.checks import real_from_text
from fbnetv3.search.errors import SearchError
from fbnetv3.search.outcome import score_of, short
from fbnetv3.search.space.space import SearchSpace
from fbnetv3.search.trial import Trial

WarmStart = str | os.PathLike[str] | Iterable[Trial | tuple[Mapping[str, Any], float]]


def read_warm_start(space: SearchSpace, source: WarmStart) -> list[Trial]:
    """Returns complete trials of batch -1, one per candidate.

    If a candidate has several scores, the last one counts. Failed trials are left out. The cells of
    a csv file are converted to the type of their variable; see :meth:`Parameter.read`.

    Args:
        space: Space that contains the configs.
        source: Trials, (config, score) pairs, or the path of a csv file with a column for each
            variable and a column ``score``.

    Raises:
        SearchError: A config is outside the space, a score is not a finite number, or a csv file
            cannot be read or has missing, unknown or duplicate columns.
    """
    if isinstance(source, str | os.PathLike):
        pairs = _read_csv(space, Path(source))
    else:
        pairs = [_pair(item) for item in _items(source) if not _is_failed(item)]
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
    return list(trials.values())


def _is_failed(item: Any) -> bool:
    return isinstance(item, Trial) and item.score is None


def _items(source: Any) -> list[Any]:
    if isinstance(source, Mapping) or not isinstance(source, Iterable):
        raise SearchError(
            f"warm_start={short(source)} is not allowed; allowed: trials, pairs such as "
            "[({'lr': 0.1}, 0.93)], or the path of a csv file"
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
            "leave out what has no score"
        )
    return config, value


def _read_csv(space: SearchSpace, path: Path) -> list[tuple[Mapping[str, Any], float]]:
    try:
        # utf-8-sig: spreadsheet programs write a byte-order mark before the first name.
        text = read_file(path, "warm start").decode("utf-8-sig")
        rows = csv.reader(io.StringIO(text, newline=""), strict=True)
        header = [name.strip() for name in next(rows, [])]
        table = [(rows.line_num, row) for row in rows if any(row)]
    except OSError as error:
        raise SearchError(f"warm start: cannot read {path}: {error.strerror or error}") from error
    except (csv.Error, ValueError) as error:
        raise SearchError(
            f"warm start: {path} is not a csv file ({error}); give a table as plain text"
        ) from error
    _check_header(space, header, path)
    return [_read_row(space, header, row, f"{path} line {line}") for line, row in table]


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
    """Returns config and score of a row. Empty cells, as of inactive variables, are left out."""
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
