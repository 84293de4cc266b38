"""Where a search writes and connects to: a config file, perhaps of others, may not say it all."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

_STORAGE, _CANDIDATES, _RAY = "SEARCH.STORAGE", "SEARCH.CANDIDATES", "SEARCH.RAY.ADDRESS"
READING = (_STORAGE,)
"""What a report needs of a run beside its folder."""


def check_places(cfg: Any, path: Path, given: Collection[str]) -> None:
    """Checks what a config file names to be written or connected to.

    Args:
        cfg: as the file has it.
        path: of the file.
        given: keys that need no check: those that the command line gives.

    Raises:
        FBNetError: a place that a file may not name; the message says what to type.
    """
    from fbnetv3.config.files import check_output_dir, check_place
    from fbnetv3.io import refuse_links_out
    from fbnetv3.search.fbnet.mirror import is_uri
    from fbnetv3.search.storage.database import sqlite_file, without_password

    node = cfg.SEARCH
    if "OUTPUT_DIR" not in given:
        check_output_dir(cfg.OUTPUT_DIR, path)
    if _STORAGE not in given:
        file = sqlite_file(node.STORAGE)
        check_place(_STORAGE, without_password(node.STORAGE), path, file)
        if file:
            kept = Path(file)
            refuse_links_out(kept.parent, (f"{kept.name}*", f".{kept.name}.lock"))
    if _CANDIDATES not in given:
        where = None if is_uri(node.CANDIDATES) else node.CANDIDATES
        check_place(_CANDIDATES, node.CANDIDATES, path, where)
    if _RAY not in given:
        check_place(_RAY, node.RAY.ADDRESS, path, None if node.RAY.ADDRESS else "")


def place_words(cfg: Any, *, to_read: bool = False) -> list[str]:
    """Returns the places of a search as arguments, which a command on its run folder repeats.

    Args:
        cfg: of the search.
        to_read: the command only reads the trials.
    """
    node = cfg.SEARCH
    places = {_STORAGE: node.STORAGE, _CANDIDATES: node.CANDIDATES, _RAY: node.RAY.ADDRESS}
    wanted = READING if to_read else tuple(places)
    return [word for key in wanted if places[key] for word in (key, places[key])]
