"""The command line of a small search, and what its tests check it with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fbnetv3.cli import run_main, search

SMALL = [
    "--config-file",
    "model_zoo/search/digits.yaml",
    *("SEARCH.BATCH_SIZE", "5", "SEARCH.ITERATIONS", "1", "SEARCH.FINALISTS", "1"),
    *("SEARCH.WORKERS", "0", "SEARCH.POOL_SIZE", "200", "SOLVER.MAX_EPOCHS", "1.0"),
    *("DATA.TRAIN_LIMIT", "128"),
    *("SEARCH.FIX", "['resolution', 16, 'stage1_n', 1, 'stage2_n', 1, 'stage3_n', 1]"),
]
"""A search of six candidates."""


def run_command(argv: list[str]) -> int:
    """Runs the command line in this process; returns its exit status."""
    return run_main(search.main, argv)


def error_line(capsys: pytest.CaptureFixture[str], argv: list[str]) -> str:
    """Returns the only line of the error with which a command line fails."""
    assert run_command(argv) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    return lines[0]


def start_run(folder: Path, *opts: str) -> Any:
    """Creates the folder and the storage of a search that has no trial yet; returns its config."""
    from fbnetv3.search.fbnet.config import SearchSetup
    from fbnetv3.search.fbnet.config_file import read_search_config
    from fbnetv3.search.fbnet.opening import build_search
    from fbnetv3.search.fbnet.run_folder import RunFolder

    folder.mkdir()
    cfg = read_search_config(SMALL[1], [*SMALL[2:], "OUTPUT_DIR", str(folder), *opts])
    build_search(SearchSetup(cfg))
    RunFolder(folder).write_config(cfg.dump(), {})
    return cfg
