"""Reads a user's own candidates from a yaml, and enqueues them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fbnetv3.io import read_text
from fbnetv3.plain_yaml import YamlError, parse_mapping
from fbnetv3.search.checks import as_text
from fbnetv3.search.errors import SearchError
from fbnetv3.search.jointnas import JointNAS
from fbnetv3.search.outcome import short

_FORM = "candidates: [{config: {VARIABLE: VALUE, ...}, reason: TEXT}, ...]"


def read_candidates(path: str | os.PathLike[str]) -> list[tuple[dict[str, Any], str]]:
    """Returns the (config, reason) pairs of a yaml.

    Args:
        path: Path of the yaml: a list ``candidates`` of items with ``config``, the value of each
            variable by name, and ``reason``, a text.

    Raises:
        SearchError: The file cannot be read, or has another form.
    """
    path = Path(path)
    try:
        content = parse_mapping(read_text(path, "config"))
    except OSError as error:
        raise SearchError(f"cannot read {path}: {error.strerror or error}") from error
    except (YamlError, UnicodeDecodeError) as error:
        raise SearchError(f"{path} is not a yaml of candidates: {error}") from error
    items = content.get("candidates")
    if {*content} != {"candidates"} or not isinstance(items, list) or not items:
        raise SearchError(f"{path} holds {short(content)}; allowed: {_FORM}")
    return [_pair(item, f"{path}: candidate {i + 1}") for i, item in enumerate(items)]


def _pair(item: Any, where: str) -> tuple[dict[str, Any], str]:
    is_whole = isinstance(item, dict) and {*item} == {"config", "reason"}
    if not is_whole or not isinstance(item["config"], dict):
        raise SearchError(f"{where} is {short(item)}; allowed: {_FORM}")
    return item["config"], as_text(f"{where}: reason", item["reason"])


def enqueue_all(
    search: JointNAS,
    candidates: Sequence[tuple[dict[str, Any], str]],
    *,
    skip_if_exists: bool = True,
) -> str:
    """Enqueues candidates, and returns a line about them.

    Args:
        search: Search to which the candidates are added.
        candidates: Pairs (config, reason), as :func:`read_candidates` returns them.
        skip_if_exists: Whether candidates that have a trial or are enqueued already are skipped;
            otherwise, they are refused.

    Raises:
        SearchError: A candidate is refused; those before it are enqueued.
    """
    stored = [
        search.enqueue(config, reason, skip_if_exists=skip_if_exists)
        for config, reason in candidates
    ]
    skipped = f"; {len(stored) - sum(stored)} exist already" if not all(stored) else ""
    return f"{sum(stored)} of {len(stored)} candidates are enqueued for the next batch{skipped}"
