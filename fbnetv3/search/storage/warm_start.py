"""Scores from an earlier search, or from a table, to begin with."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fbnetv3.plain_yaml import YamlError, parse_yaml
from fbnetv3.search.errors import SearchError
from fbnetv3.search.space.space import SearchSpace
from fbnetv3.search.trial import Trial

WarmStart = str | os.PathLike[str] | Iterable[Trial | tuple[Mapping[str, Any], float]]


def read_warm_start(space: SearchSpace, source: WarmStart) -> list[Trial]:
    """Returns complete trials of batch -1, one a candidate; the last score of a candidate counts.

    Args:
        space: in which the configs must lie.
        source: trials, (config, score) pairs, or the path of a csv with a column for each
            variable and one named ``score``. Failed trials are left out.

    Raises:
        SearchError: a config is not in the space, a score no number, or a column is missing.
    """
    if isinstance(source, str | os.PathLike):
        pairs = _rows_of(Path(source))
    else:
        pairs = [_pair(item) for item in source if not _is_failed(item)]
    found: dict[str, Trial] = {}
    for config, score in pairs:
        levels = space.levels([config])
        if not math.isfinite(score):
            raise SearchError(
                f"warm start: the score {score} of {dict(config)} is no finite number"
            )
        key = space.ids(levels)[0]
        trial = Trial(key, 0, -1, space.configs(levels)[0])
        trial.finish(score)
        found[key] = trial
    for number, trial in enumerate(found.values()):
        trial.number = number - len(found)  # before those of this search
    return list(found.values())


def _is_failed(item: Any) -> bool:
    return isinstance(item, Trial) and item.score is None


def _pair(item: Any) -> tuple[Mapping[str, Any], float]:
    if isinstance(item, Trial):
        return item.config, float(item.score if item.score is not None else math.nan)
    config, score = item
    return config, float(score)


def _rows_of(path: Path) -> list[tuple[Mapping[str, Any], float]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise SearchError(f"warm start: cannot read {path}: {error.strerror}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise SearchError(f"warm start: {path} is no csv: {error}; give a table as text") from error
    found: list[tuple[Mapping[str, Any], float]] = []
    for number, row in enumerate(rows, start=2):
        if "score" not in row:
            raise SearchError(f"warm start: {path} has no column 'score'")
        values = _values_of(row, f"warm start: {path} line {number}")
        score = values.pop("score", math.nan)
        try:
            found.append((values, float(score)))
        except (TypeError, ValueError) as error:
            raise SearchError(f"warm start: {path} line {number}: score {score!r}") from error
    return found


def _values_of(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Reads values as yaml does: 3, 0.1, true, text."""
    found: dict[str, Any] = {}
    for key, text in row.items():
        if text in ("", None):
            continue
        try:
            found[key] = parse_yaml(text)
        except (YamlError, AttributeError, TypeError) as error:  # a row of more cells than columns
            raise SearchError(f"{where}: {key}={str(text)[:40]!r}: {error}") from error
    return found
