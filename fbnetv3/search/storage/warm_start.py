"""Reads the scores that a search starts with, from an earlier search or a table."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fbnetv3.io import read_file
from fbnetv3.plain_yaml import YamlError, parse_yaml
from fbnetv3.search.errors import SearchError
from fbnetv3.search.space.space import SearchSpace
from fbnetv3.search.trial import Trial

WarmStart = str | os.PathLike[str] | Iterable[Trial | tuple[Mapping[str, Any], float]]


def read_warm_start(space: SearchSpace, source: WarmStart) -> list[Trial]:
    """Returns complete trials of batch -1, one per candidate.

    If a candidate has several scores, the last one counts. Failed trials are left out.

    Args:
        space: Space that contains the configs.
        source: Trials, (config, score) pairs, or the path of a csv file with a column for each
            variable and a column ``score``.

    Raises:
        SearchError: A config is outside the space, a score is not a number, or a column is missing.
    """
    if isinstance(source, str | os.PathLike):
        pairs = _read_csv(Path(source))
    else:
        pairs = [_pair(item) for item in source if not _is_failed(item)]
    trials: dict[str, Trial] = {}
    for config, score in pairs:
        levels = space.levels([config])
        if not math.isfinite(score):
            raise SearchError(
                f"warm start: the score {score} of {dict(config)} is not a finite number"
            )
        key = space.ids(levels)[0]
        trial = Trial(key, 0, -1, space.configs(levels)[0])
        trial.finish(score)
        trials[key] = trial
    for number, trial in enumerate(trials.values()):
        trial.number = number - len(trials)  # negative: before the trials of this search
    return list(trials.values())


def _is_failed(item: Any) -> bool:
    return isinstance(item, Trial) and item.score is None


def _pair(item: Any) -> tuple[Mapping[str, Any], float]:
    if isinstance(item, Trial):
        return item.config, float(item.score if item.score is not None else math.nan)
    config, score = item
    return config, float(score)


def _read_csv(path: Path) -> list[tuple[Mapping[str, Any], float]]:
    try:
        text = read_file(path, "warm start").decode("utf-8")
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
    except OSError as error:
        raise SearchError(f"warm start: cannot read {path}: {error.strerror or error}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise SearchError(
            f"warm start: {path} is not a csv file ({error}); give a table as plain text"
        ) from error
    pairs: list[tuple[Mapping[str, Any], float]] = []
    for line, row in enumerate(rows, start=2):
        if "score" not in row:
            raise SearchError(f"warm start: {path} has no column 'score'")
        config = _parse_row(row, f"warm start: {path} line {line}")
        score = config.pop("score", math.nan)
        try:
            pairs.append((config, float(score)))
        except (TypeError, ValueError) as error:
            raise SearchError(
                f"warm start: {path} line {line}: the score {score!r} is not a number"
            ) from error
    return pairs


def _parse_row(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Returns the values of a row, parsed as yaml (3, 0.1, true, text); empty cells are left out.

    Args:
        row: Text by column.
        where: File and line of the row, for messages.
    """
    values: dict[str, Any] = {}
    for key, text in row.items():
        if key is None:
            raise SearchError(f"{where} has more cells than the header has columns; correct it")
        if text in ("", None):
            continue
        try:
            values[key] = parse_yaml(text)
        except YamlError as error:
            raise SearchError(f"{where}: {key}={str(text)[:40]!r}: {error}") from error
    return values
