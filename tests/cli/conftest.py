"""A small finished search, shared by the tests of the search's command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.search_command import SMALL, run_command


@pytest.fixture(scope="session")
def search_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished search of six candidates."""
    pytest.importorskip("detectron2")
    folder = tmp_path_factory.mktemp("search") / "run"
    assert run_command([*SMALL, "OUTPUT_DIR", str(folder)]) == 0
    return folder
