"""The folder of a run: who may use it, and with which config."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fbnetv3.search import SearchError

pytest.importorskip("detectron2")

from fbnetv3.search.fbnet.run_folder import RunFolder

HOLD = """
import sys, time
from fbnetv3.search.fbnet.run_folder import RunFolder
with RunFolder(sys.argv[1]).locked():
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_folder_is_in_use_until_its_owner_dies(tmp_path: Path) -> None:
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


def test_another_config_is_refused_with_the_keys_that_differ(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.check_config("A: {B: 1}\n", [])  # a new folder takes any config
    folder.write_config("A: {B: 1, C: 2}\nD: x\n", {})
    folder.check_config("A: {B: 1, C: 9}\nD: x\n", ["A.C"])
    with pytest.raises(SearchError, match=r"config: A\.B was 1, is 9; D was 'x', is 'y';"):
        folder.check_config("A: {B: 9, C: 9}\nD: y\n", ["A.C"])


def test_keys_that_an_earlier_version_did_not_have_get_their_defaults(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_config("A: 1\nSOLVER: {NESTEROV: false}\n", {})
    now = "A: 1\nNEW: 2\nSOLVER: {NESTEROV: null}\n"
    folder.check_config(now, [], {"NEW": 2})
    with pytest.raises(SearchError, match="NEW was 3, is 2"):
        folder.check_config(now, [], {"NEW": 3})


def test_a_changed_file_is_refused_with_its_key(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.check_files({"SEARCH.SPACE": "a" * 64})
    folder.write_config("A: 1\n", {"SEARCH.SPACE": "a" * 64, "MODEL.ARCH": "b" * 64})
    folder.check_files({"SEARCH.SPACE": "a" * 64, "MODEL.ARCH": "b" * 64})
    with pytest.raises(SearchError, match=r"has changed since .*: MODEL\.ARCH \(sha256 was bbb"):
        folder.check_files({"SEARCH.SPACE": "a" * 64, "MODEL.ARCH": "c" * 64})


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="holds no search"):
        RunFolder(tmp_path).require()
