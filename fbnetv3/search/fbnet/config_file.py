"""Reads a search's config from a yaml, which may be untrusted, and command-line overrides."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from fbnetv3.config import CfgNode
from fbnetv3.config.files import check_is_local, check_output_dir
from fbnetv3.io import refuse_links_out
from fbnetv3.resources import find_config
from fbnetv3.search.fbnet.identity import file_hashes
from fbnetv3.search.fbnet.keys import get_search_cfg
from fbnetv3.search.fbnet.mirror import is_uri
from fbnetv3.search.fbnet.run_folder import RunFolder
from fbnetv3.search.storage.database import sqlite_file, without_password


def read_search_config(config_file: str, opts: Sequence[Any] = ()) -> CfgNode:
    """Returns the frozen config of a search.

    Args:
        config_file: Path of a yaml, or the name of one in ``model_zoo/``.
        opts: Overrides: KEY, VALUE, KEY, VALUE, ... Addresses of servers, and locations outside the
            file's folder and the current folder, are accepted here but not in the file.

    Raises:
        FBNetError: The file cannot be read, a key or value is invalid, or the file contains a
            location that is accepted only as an override.
    """
    return _read(config_file, list(opts), unused=())


def read_run_config(folder: RunFolder, opts: Sequence[Any] = ()) -> CfgNode:
    """Returns the frozen config of a run, for reading the run without resuming it.

    Args:
        folder: Folder of the run.
        opts: Overrides of locations, such as SEARCH.STORAGE, URL.

    Raises:
        FBNetError: The folder holds no run, its config is invalid or contains a location that is
            accepted only as an override, or a file that the config refers to has changed since the
            search started.
    """
    folder.require()
    unused = ("SEARCH.CANDIDATES", "SEARCH.RAY.ADDRESS", "OUTPUT_DIR")
    cfg = _read(str(folder.config), list(opts), unused)
    cfg.defrost()
    # Not set through opts, whose values are parsed: a folder named 2024 would be read as a number.
    cfg.OUTPUT_DIR = str(folder.path)
    cfg.freeze()
    folder.check_files(file_hashes(cfg))
    return cfg


def _read(config_file: str, opts: list[Any], unused: Collection[str]) -> CfgNode:
    cfg, path = get_search_cfg(), find_config(config_file)
    cfg.merge_from_file(str(path))
    _check_locations(cfg, path, {*opts[::2], *unused})
    cfg.merge_from_list(opts)
    if not cfg.OUTPUT_DIR:
        cfg.OUTPUT_DIR = os.path.join("output", "search", path.stem)
    cfg.freeze()
    return cfg


def _check_locations(cfg: CfgNode, path: Path, exempt: Collection[str]) -> None:
    """Checks the locations in a config file that the search writes or connects to.

    Args:
        cfg: Config as the file has it, without overrides.
        path: Path of the file.
        exempt: Keys that are not checked, because they are overridden or not used.

    Raises:
        FBNetError: The file contains a location that is accepted only as an override.
    """
    node = cfg.SEARCH
    if "OUTPUT_DIR" not in exempt:
        check_output_dir(cfg.OUTPUT_DIR, path)
    if "SEARCH.STORAGE" not in exempt:
        file = sqlite_file(node.STORAGE)
        check_is_local("SEARCH.STORAGE", without_password(node.STORAGE), path, local_path=file)
        if file:
            database = Path(file)
            patterns = (f"{database.name}*", f".{database.name}.lock")
            refuse_links_out(database.parent, patterns)
    if "SEARCH.WARM_START" not in exempt and "://" in node.WARM_START:
        file = sqlite_file(node.WARM_START)
        check_is_local("SEARCH.WARM_START", without_password(node.WARM_START), path, file)
    if "SEARCH.CANDIDATES" not in exempt:
        folder = None if is_uri(node.CANDIDATES) else node.CANDIDATES
        check_is_local("SEARCH.CANDIDATES", node.CANDIDATES, path, local_path=folder)
    if "SEARCH.RAY.ADDRESS" not in exempt:
        address = node.RAY.ADDRESS
        # None stands for a network address, which a file may not give; "" stands for a local Ray.
        place = None if address else ""
        check_is_local("SEARCH.RAY.ADDRESS", address, path, local_path=place)
