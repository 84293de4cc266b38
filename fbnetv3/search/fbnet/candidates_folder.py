"""The location of a search's candidates, one folder each: in the run's folder, or in another one.

Several searches may use the same SEARCH.CANDIDATES. Their candidates can have the same ids but
different scores, so each search has its own subfolder, named by a hash of its config. The hash
leaves EXTENSIBLE_KEYS out: a search that is continued with a higher SEARCH.ITERATIONS finds its
candidates. Earlier versions of this package hashed these keys, too; their subfolders are kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fbnetv3.config import CfgNode
from fbnetv3.search.fbnet.keys import EXTENSIBLE_KEYS
from fbnetv3.search.fbnet.mirror import Mirror, is_uri
from fbnetv3.search.fbnet.run_folder import RunFolder

_ITERATIONS = "SEARCH.ITERATIONS"
"""The key of EXTENSIBLE_KEYS that earlier versions hashed."""
_MOST_ITERATIONS = 100
"""Subfolders of earlier versions are looked for up to this number of iterations."""


def candidates_place(
    cfg: CfgNode,
    folder: RunFolder,
    scored_by: Mapping[str, Any],
    logged: Mapping[str, Any] | None = None,
) -> str:
    """Returns the folder or URI of a search's candidates; a URI is checked to be writable.

    Args:
        cfg: Config of the search.
        folder: Folder of the run.
        scored_by: Config values that the scores depend on, by key.
        logged: Those of the log that is restored; None: no log.

    Raises:
        StorageUnavailableError: The URI cannot be read or written to.
        SearchError: The config in the folder of the run cannot be read.
    """
    place = str(folder.candidates)
    if cfg.SEARCH.CANDIDATES:
        root = cfg.SEARCH.CANDIDATES.rstrip("/")
        place = f"{root}/{_subfolder(root, folder, scored_by, logged or {})}"
    if is_uri(place):
        Mirror(place).check()
    return place


def _subfolder(
    root: str, folder: RunFolder, scored_by: Mapping[str, Any], logged: Mapping[str, Any]
) -> str:
    """Returns the name of the search's subfolder: an existing one, or that of a new search."""
    fixed = {key: value for key, value in scored_by.items() if key not in EXTENSIBLE_KEYS}
    new = _name(fixed)
    stored = folder.stored_config() if folder.config.is_file() else {}
    begun = (values[_ITERATIONS] for values in (stored, logged) if _ITERATIONS in values)
    names = [_name({**fixed, _ITERATIONS: number}) for number in begun]
    lower = range(min(scored_by[_ITERATIONS], _MOST_ITERATIONS), 0, -1)
    earlier = (_name({**fixed, _ITERATIONS: number}) for number in lower)
    return next(_existing(root, (*names, new, *earlier)), new)


def _name(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def _existing(root: str, names: tuple[str, ...]) -> Iterator[str]:
    """Yields the names of subfolders that exist, in the given order."""
    if is_uri(root):
        yield from Mirror(root).existing(names)
    else:
        yield from (name for name in names if (Path(root) / name).is_dir())
