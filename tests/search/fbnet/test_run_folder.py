from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fbnetv3.search import SearchError
from fbnetv3.search.fbnet.config import parse_constraint
from fbnetv3.search.fbnet.run_folder import RunFolder
from fbnetv3.search.space.constraints import Constraint

HOLD = """
import sys, time
from fbnetv3.search.fbnet.run_folder import RunFolder
with RunFolder(sys.argv[1]).locked():
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_folder_in_use_is_refused_until_its_owner_dies(tmp_path: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == "held\n"
    with (
        pytest.raises(SearchError, match=f"in use by process {owner.pid} "),
        RunFolder(tmp_path).locked(),
    ):
        pass
    owner.kill()
    owner.wait()
    with RunFolder(tmp_path).locked():
        pass


def test_another_config_is_refused_with_the_keys(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.check_config("A: {B: 1}\n", [])  # a new folder takes any
    folder.keep_config("A: {B: 1, C: 2}\nD: x\n", {})
    folder.check_config("A: {B: 1, C: 9}\nD: x\n", ["A.C"])
    with pytest.raises(SearchError, match=r"config: A\.B was 1, is 9; D was 'x', is 'y';"):
        folder.check_config("A: {B: 9, C: 9}\nD: y\n", ["A.C"])


def test_a_file_with_other_content_is_refused_by_its_key(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.check_files({"SEARCH.SPACE": "a" * 64})
    folder.keep_config("A: 1\n", {"SEARCH.SPACE": "a" * 64, "MODEL.ARCH": "b" * 64})
    folder.check_files({"SEARCH.SPACE": "a" * 64, "MODEL.ARCH": "b" * 64})
    with pytest.raises(SearchError, match=r"of the file of MODEL\.ARCH \(sha256 was bbb"):
        folder.check_files({"SEARCH.SPACE": "a" * 64, "MODEL.ARCH": "c" * 64})


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="holds no search"):
        RunFolder(tmp_path).require()


@pytest.mark.parametrize(
    ("text", "constraint"),
    [
        ("macs <= 8e8", Constraint("macs", upper=8e8)),
        ("params>=1000", Constraint("params", lower=1000)),
        ("4e8 <= macs <= 8.5E8", Constraint("macs", 4e8, 8.5e8)),
    ],
)
def test_constraints_are_read(text: str, constraint: Constraint) -> None:
    assert parse_constraint(text) == constraint


@pytest.mark.parametrize("text", ["macs < 8e8", "macs", "macs <= x", "1.2.3 <= macs <= 5", ""])
def test_other_constraints_are_refused(text: str) -> None:
    with pytest.raises(SearchError, match="not understood"):
        parse_constraint(text)
