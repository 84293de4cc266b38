"""Restores a search from its log, without the rest of its run folder.

    python -m projects.cifar10_jointnas.runs LOG_DIR CANDIDATES_DIR

This command copies the results of the first batch of a log to ``candidates/`` of another search.
With the same space, seed and data, that search begins with the same batch, and uses these results
instead of training the candidates again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

from fbnetv3.io import atomic_write
from fbnetv3.search import JointNAS
from fbnetv3.search.fbnet.config import settings_from_config, space_from_config
from fbnetv3.search.fbnet.datasets import num_classes_from_config
from fbnetv3.search.fbnet.keys import get_search_cfg
from fbnetv3.search.fbnet.space import FBNetSpace
from fbnetv3.search.storage.batch_log import BatchLog

_HASHES = "sha256 of "
"""Beginning of the keys of a logged config that hold the hashes of files."""


class Run(NamedTuple):
    """A search restored from its log, which may be unfinished.

    Attributes:
        cfg: Config of the search.
        space: Space of the candidates.
        search: Search with its finished trials.
    """

    cfg: Any
    space: FBNetSpace
    search: JointNAS


def open_log(folder: Path) -> Run:
    """Restores the search of a log.

    Args:
        folder: Folder ``log/`` of a run, or a copy of it.

    Raises:
        SearchError: The folder has no log, or a log that cannot be read.
    """
    logged = BatchLog(folder).read()
    cfg = get_search_cfg()
    keys = {k: v for k, v in logged.config.items() if not k.startswith(_HASHES)}
    for key, value in keys.items():  # A.B.C becomes the tree {A: {B: {C: value}}}
        tree: Any = value
        for part in reversed(key.split(".")):
            tree = {part: tree}
        cfg.merge_from_other_cfg(tree)
    space, settings = space_from_config(cfg), settings_from_config(cfg)
    statistics = None
    if space.has_architecture:
        statistics = space.statistics(num_classes_from_config(cfg))
    search = JointNAS(
        space.space, settings, statistics=statistics, warm_start=cfg.SEARCH.WARM_START or None
    )
    search.restore(logged)
    search.ask()
    return Run(cfg, space, search)


def share_first_batch(log: Path, candidates: Path) -> int:
    """Copies the results of the first batch to another search; returns the number of results.

    Args:
        log: Folder of the log.
        candidates: Folder ``candidates/`` of the other search.
    """
    first = [t for t in BatchLog(log).read().trials if t.batch == 0 and t.state == "complete"]
    for trial in first:
        folder = candidates / trial.id
        folder.mkdir(parents=True, exist_ok=True)
        result = {"score": trial.final_score, "max_epochs": trial.max_epochs}
        for name, values in (("scores.json", trial.reports), ("result.json", result)):
            with atomic_write(folder / name) as temporary:
                temporary.write_text(json.dumps(values), encoding="utf-8")
    return len(first)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("log", type=Path, metavar="LOG_DIR", help="log of the search")
    parser.add_argument("candidates", type=Path, metavar="CANDIDATES_DIR", help="folder to write")
    args = parser.parse_args()
    count = share_first_batch(args.log, args.candidates)
    print(f"copied the results of {count} candidates from {args.log} to {args.candidates}")


if __name__ == "__main__":
    main()
