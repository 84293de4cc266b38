"""A search's log as a search again: nothing else of its run is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from fbnetv3.search import JointNAS
from fbnetv3.search.batch_log import BatchLog
from fbnetv3.search.config import search_arguments
from fbnetv3.search.evaluator import get_search_cfg, num_classes_from_config, space_from_config
from fbnetv3.search.fbnet_space import FBNetSpace

_HASHES = "sha256 of "


class Run(NamedTuple):
    """A finished or unfinished search.

    Attributes:
        cfg: its config.
        space: of its candidates.
        search: holds its finished trials.
    """

    cfg: Any
    space: FBNetSpace
    search: JointNAS


def open_log(folder: Path) -> Run:
    """Returns the search of a folder ``log/``, or of a copy of one.

    Raises:
        SearchError: it holds no log, or one of other code's search.
    """
    logged = BatchLog(folder).read()
    cfg = get_search_cfg()
    keys = {k: v for k, v in logged.config.items() if not k.startswith(_HASHES)}
    cfg.merge_from_list([x for pair in keys.items() for x in pair])
    space, arguments = space_from_config(cfg), search_arguments(cfg)
    statistics = None
    if space.has_architecture:
        statistics = space.statistics(num_classes_from_config(cfg))
    search = JointNAS(space.space, statistics=statistics, **arguments)
    search.restore(logged)
    search.ask()
    return Run(cfg, space, search)
