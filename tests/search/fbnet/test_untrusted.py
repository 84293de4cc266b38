"""Untrusted run folders, storages and configs of searches."""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from fbnetv3.cli import run_main
from fbnetv3.cli.search import main as search_main
from fbnetv3.config import ConfigError
from fbnetv3.config.node import get_value
from fbnetv3.io import WriteError
from fbnetv3.search import Choice, SearchSpace, Trial
from fbnetv3.search.errors import SearchError
from fbnetv3.search.fbnet.config_file import read_search_config
from fbnetv3.search.fbnet.run_folder import RunFolder
from fbnetv3.search.storage.optuna_store import OptunaStore
from fbnetv3.search.storage.warm_start import read_warm_start

EVIL = "<script>alert(1)</script>"


@pytest.mark.parametrize(
    "content",
    [
        '{"../../other": ["x"]}',
        '{"/abs": ["x"]}',
        '{"..": ["x"]}',
        '{"best": "x"}',
        '{"best": [5]}',
        "[1]",
        "{",
        "[" * 100_000,
    ],
)
def test_winners_must_be_names_in_the_folder(content: str, tmp_path: Path) -> None:
    (tmp_path / "winners.json").write_text(content)
    with pytest.raises(SearchError, match=r"winners\.json"):
        RunFolder(tmp_path).winners()


def test_names_of_winners_are_accepted(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for name in ("best", "best_macs_1.5M", "best_params_1e+06", "best_latency_ms_2.5"):
        folder.record_winner(name, ["line"])
    assert len(folder.winners()) == 4


def test_a_files_json_that_is_not_valid(tmp_path: Path) -> None:
    for content in ("{", "5", '"x"'):
        (tmp_path / "files.json").write_text(content)
        with pytest.raises(SearchError, match=r"files\.json"):
            RunFolder(tmp_path).check_files({"MODEL.ARCH": "0" * 64})


SPACE = SearchSpace([Choice("optim", ["a", "b"], part="recipe")])


@pytest.mark.parametrize(
    "change",
    [
        {"state": "running", "id": "../../elsewhere"},
        {"state": "other"},
        {"score": None},
        {"score": "<b>"},
        {"statistics": {"macs": EVIL}},
        {"reports": {"1": EVIL}},
        {"config": [1]},
        {"on_report": "x"},
        {"unknown": 1},
    ],
)
def test_stored_trials_must_be_finished_and_complete(
    change: dict[str, Any], tmp_path: Path
) -> None:
    import optuna

    store = OptunaStore(f"sqlite:///{tmp_path / 'x.db'}", SPACE)
    trial = Trial("abc", 0, 0, {"optim": "a"})
    trial.finish(1.0)
    store.add(trial)
    assert store.load() == [trial]
    study = optuna.load_study(study_name="jointnas", storage=f"sqlite:///{tmp_path / 'x.db'}")
    text = json.dumps(trial.to_dict() | change)
    study.add_trial(optuna.trial.create_trial(value=1.0, user_attrs={"trial": text}))
    with pytest.raises(SearchError, match="the storage holds a trial that"):
        store.load()


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe", b'optim,score\n"' + b"x" * 200_000 + b'",1\n', b"optim,score\na,1,2,3\n"],
)
def test_warm_start_tables_that_are_not_valid(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "warm.csv").write_bytes(content)
    with pytest.raises(SearchError, match="warm start"):
        read_warm_start(SPACE, tmp_path / "warm.csv")


# --- paths and addresses in a config file ---

OUTSIDE = [
    ("STORAGE", "sqlite:///{tmp}/victim/x.db"),
    ("STORAGE", "sqlite:///../victim/x.db"),
    ("STORAGE", "sqlite+pysqlite:///x.db"),
    ("STORAGE", "sqlite:///file:{tmp}/victim/x.db?uri=true"),
    ("STORAGE", "postgresql://attacker.invalid/db"),
    ("STORAGE", "mysql+pymysql://attacker.invalid/db"),
    ("CANDIDATES", "{tmp}/victim/x"),
    ("CANDIDATES", "../victim"),
    ("CANDIDATES", "s3://bucket/run"),
    ("CANDIDATES", "file://{tmp}/victim/x"),
    ("RAY.ADDRESS", "attacker.invalid:6379"),
    ("RAY.ADDRESS", "auto"),
]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns the current folder; beside it are the folders configs and victim."""
    for name in ("work", "configs", "victim"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def _search_config(folder: Path, key: str, value: str) -> Path:
    group, _, name = f"SEARCH.{key}".rpartition(".")
    path = folder / "x.yaml"
    inner = f"{{{name}: {json.dumps(value)}}}"
    path.write_text(f"SEARCH: {inner if group == 'SEARCH' else f'{{RAY: {inner}}}'}\n")
    return path


@pytest.mark.parametrize(("key", "value"), OUTSIDE)
def test_a_config_file_cannot_set_paths_outside_of_its_folder_or_addresses(
    key: str, value: str, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    value = value.format(tmp=work.parent)
    path = _search_config(work.parent / "configs", key, value)
    assert run_main(search_main, ["--config-file", str(path)]) == 2
    option = shlex.join([f"SEARCH.{key}", value])
    assert capsys.readouterr().err.endswith(f"give it on the command line: {option}\n")
    assert list((work.parent / "victim").iterdir()) == list(work.iterdir()) == []
    # The option in the message is accepted on the command line.
    cfg = read_search_config(str(path), [f"SEARCH.{key}", value])
    assert get_value(cfg, f"SEARCH.{key}") == value


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("STORAGE", ""),
        ("STORAGE", "sqlite://"),
        ("STORAGE", "sqlite:///:memory:"),
        ("STORAGE", "sqlite:///output/x.db"),
        ("STORAGE", "sqlite:///{tmp}/configs/x.db"),
        ("CANDIDATES", ""),
        ("CANDIDATES", "output/candidates"),
        ("CANDIDATES", "{tmp}/configs/candidates"),
        ("RAY.ADDRESS", ""),
    ],
)
def test_a_config_file_may_set_paths_in_its_folder_or_the_current_one(
    key: str, value: str, work: Path
) -> None:
    value = value.format(tmp=work.parent)
    path = _search_config(work.parent / "configs", key, value)
    assert get_value(read_search_config(str(path), []), f"SEARCH.{key}") == value


@pytest.mark.parametrize("link", ["x.db", "x.db-journal", ".x.db.lock"])
def test_a_link_in_place_of_a_storage_is_refused(link: str, work: Path) -> None:
    (work / "data").mkdir()
    (work / "data" / link).symlink_to(work.parent / "victim" / "x")
    path = _search_config(work.parent / "configs", "STORAGE", "sqlite:///data/x.db")
    with pytest.raises((ConfigError, WriteError)):
        read_search_config(str(path), [])


def test_a_password_is_not_repeated(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _search_config(work, "STORAGE", "postgresql://me:secret@attacker.invalid/db")
    assert run_main(search_main, ["--config-file", str(path)]) == 2
    message = capsys.readouterr().err
    assert "me:***@attacker.invalid" in message
    assert "secret" not in message


@pytest.mark.parametrize("flags", [["--report"], ["--evolve"]], ids=["report", "evolve"])
@pytest.mark.parametrize("content", ["nothing", "tables", "another study", "no file"])
def test_an_untrusted_run_folder_does_not_change_other_databases(
    flags: list[str], content: str, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    victim = work.parent / "victim" / "x.sqlite"
    url = f"sqlite:///{victim}"
    if content == "another study":
        OptunaStore(url, SPACE, "other")
    elif content != "no file":
        with contextlib.closing(sqlite3.connect(victim)) as file:
            file.execute("CREATE TABLE places (name)" if content == "tables" else "VACUUM")
    before = victim.read_bytes() if victim.exists() else None
    refusal = "holds the table 'places'" if content == "tables" else "holds no study 'jointnas'"
    folder = work / "untrusted"
    folder.mkdir()
    _search_config(folder, "STORAGE", url).rename(folder / "config.yaml")
    argv = [*flags, str(folder), *(["--macs", "1e6"] if flags == ["--evolve"] else [])]
    assert run_main(search_main, argv) == 2
    assert f"give it on the command line: SEARCH.STORAGE {url}" in capsys.readouterr().err
    # This also holds if the command line names the database, or if it is in the current folder.
    assert run_main(search_main, [*flags, str(folder), "SEARCH.STORAGE", url, *argv[2:]]) == 2
    assert refusal in capsys.readouterr().err
    _search_config(folder, "STORAGE", "sqlite:///x.sqlite").rename(folder / "config.yaml")
    if before is not None:
        shutil.copy(victim, work)
    assert run_main(search_main, argv) == 2
    assert refusal in capsys.readouterr().err
    for path in (victim, work / "x.sqlite"):
        assert (path.read_bytes() if path.exists() else None) == before
    assert [path.name for path in victim.parent.iterdir()] == ["x.sqlite"] * (before is not None)
