"""Paths of any characters as storages, studies of other programs, and new databases."""

from __future__ import annotations

import multiprocessing as mp
import os
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from sqlalchemy.engine import URL, make_url

from fbnetv3.search import FloatRange, JointNAS, SearchError, SearchSpace
from fbnetv3.search.fbnet.run_folder import RunFolder
from fbnetv3.search.storage.database import is_missing, sqlite_url, url_text

NAMES = [
    "plain", "sp ace", "lr?x=1", "a%20b", "a%41b", "100%", "a#b", "a&b;c", "it's", 'say "x"',
    "ünïcödé", "日本", "a\nb", "{x}", "{", "{SCHEMA}", "a:b@c", "$HOME", "~", "*", "[a]", "\\",
    "+", "-rf", "'", "a=b", " lead", "trail ", "2024", "None", "1e5", "🙂",
]  # fmt: skip


IS_OLD = tuple(map(int, sqlalchemy.__version__.split(".")[:2])) < (2, 1)
"""Whether SQLAlchemy's URLs as text cannot have a question mark in a path."""


def _is_refused(name: str, tmp_path: Path) -> bool:
    """Checks that a path which SQLAlchemy cannot express is refused; returns whether it is one."""
    is_refused = IS_OLD and "?" in name
    if is_refused:
        with pytest.raises(SearchError, match=r"rename the folder, or install SQLAlchemy 2\.1"):
            sqlite_url(tmp_path / name / "search.db")
    return is_refused


def _search(storage: str | URL) -> JointNAS:
    space = SearchSpace([FloatRange("x", 0.0, 1.0)])
    return JointNAS(
        space,
        pool_size=16,
        batch_size=1,
        iterations=1,
        finalists=0,
        storage=storage,
        pretrain=False,
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_url_leads_to_its_file(name: str, tmp_path: Path) -> None:
    if _is_refused(name, tmp_path):
        return
    url = sqlite_url(tmp_path / name / "search.db")
    assert make_url(url).database == str(tmp_path / name / "search.db")
    assert RunFolder(tmp_path / name).storage == url


@pytest.mark.parametrize("name", ["lr?x=1", "a%41b", "{x}", "a\nb ü'\""])
def test_a_search_in_a_folder_of_any_name_has_its_database_and_lock_there(
    name: str, tmp_path: Path
) -> None:
    if _is_refused(name, tmp_path):
        return
    run = RunFolder(tmp_path / name)
    run.path.mkdir()
    _search(run.storage).run(lambda trial: 0.5)
    assert sorted(p.name for p in run.path.iterdir()) == [".search.db.lock", "search.db"]
    assert [p.name for p in tmp_path.iterdir()] == [name]
    url = URL.create("sqlite", database=str(run.path / "search.db"))
    assert _search(url).result().best.score == 0.5


def test_a_name_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match=r"OUTPUT_DIR=.*UTF-8") as error:
        RunFolder(os.fsdecode(os.fsencode(tmp_path) + b"/a\xff"))
    str(error.value).encode()


def test_text_of_a_url_is_kept() -> None:
    for text in ("sqlite:///a.db", "postgresql://u:p@h/d?x=1"):
        assert url_text(text) == text


@pytest.mark.parametrize("directions", [["minimize"], ["maximize", "maximize"]])
def test_a_study_of_another_direction_is_refused(directions: list[str], tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    optuna.create_study(storage=url, study_name="jointnas", directions=directions)
    with pytest.raises(SearchError, match=r"directions .* but a search with direction='maximize'"):
        _search(url)


_COORDINATE = """
import sys, time, os
from fbnetv3.errors import FBNetError
from tests.search.storage.test_urls import _search
while not os.path.exists("go"):
    time.sleep(0.001)
try:
    search = _search("sqlite:///new.db")
    search.ask()
except FBNetError as error:
    print(error)
else:
    print("owner", os.getpid(), flush=True)
    while not os.path.exists("stop"):
        time.sleep(0.01)
"""


@pytest.mark.slow
def test_of_two_coordinators_of_a_new_database_the_second_is_told_who_owns_it(
    tmp_path: Path,
) -> None:
    for number in range(3):
        folder = tmp_path / str(number)
        folder.mkdir()
        command = [sys.executable, "-c", _COORDINATE]
        environment = {**os.environ, "PYTHONPATH": os.getcwd()}
        both = [
            subprocess.Popen(command, cwd=folder, env=environment, stdout=-1, text=True)
            for _ in range(2)
        ]
        mp.Event().wait(4.0)  # both have imported the package
        (folder / "go").touch()
        first = {p.pid: p for p in both}
        done = _first_to_end(both)
        (folder / "stop").touch()
        message = done.communicate(timeout=300)[0]
        owner = next(p for pid, p in first.items() if pid != done.pid)
        assert owner.communicate(timeout=300)[0] == f"owner {owner.pid}\n"
        assert f"is in use by process {owner.pid} on {os.uname().nodename}" in message


def _first_to_end(processes: list[subprocess.Popen[str]]) -> subprocess.Popen[str]:
    for _ in range(6000):
        for process in processes:
            if process.poll() is not None:
                return process
        mp.Event().wait(0.05)
    raise AssertionError("both wait")


@pytest.mark.parametrize("form", ["sqlite:///{}", "sqlite:///file:{}?mode=ro&uri=true"])
def test_a_file_with_content_is_not_missing(form: str, tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    url = form.format(path)
    assert is_missing(url)
    path.touch()
    assert is_missing(url)
    path.write_bytes(b"SQLite format 3")
    assert not is_missing(url)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_database_in_memory_is_missing(url: str) -> None:
    assert is_missing(url)
