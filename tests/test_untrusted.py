"""What others wrote is read by readers that run nothing, and what is written stays in its folder.

Files of one kind are in test_plain_yaml.py, zoo/, data/ and detection/test_untrusted.py; here are
the source itself, run folders, OUTPUT_DIR and the report.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import shlex
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from fbnetv3.cli import printable, run_main
from fbnetv3.cli import search as search_cli
from fbnetv3.cli.search import main as search_main
from fbnetv3.cli.train import main as train_main
from fbnetv3.config import ConfigError, get_cfg
from fbnetv3.config.files import check_output_dir
from fbnetv3.config.node import get_value
from fbnetv3.engine.folder import start_folder
from fbnetv3.engine.logs import setup_logging
from fbnetv3.io import WriteError, open_regular
from fbnetv3.search import Choice, JointNAS, SearchSpace, Trial
from fbnetv3.search.errors import SearchError
from fbnetv3.search.fbnet.run_folder import RunFolder
from fbnetv3.search.report import About, Winner, write_report
from fbnetv3.search.storage.optuna_store import OptunaStore
from fbnetv3.search.storage.warm_start import read_warm_start

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted([*(ROOT / "fbnetv3").rglob("*.py"), *(ROOT / "tools").glob("*.py")])
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)> {{ 7 * 7 }}"

# call -> the only files that may hold it
ONLY_IN: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(["eval", "exec", "compile", "marshal.loads", "os.system", "shelve.open"], ()),
    **dict.fromkeys(["yaml.safe_load", "yaml.full_load", "yaml.unsafe_load", "np.load"], ()),
    **dict.fromkeys(["pickle.load", "pickle.loads", "torch.jit.load", "joblib.load"], ()),
    **dict.fromkeys(["DetectionCheckpointer", "build_detection_train_loader"], ()),
    **dict.fromkeys(["shutil.unpack_archive", "archive.extractall", "archive.extract"], ()),
    "yaml.load": ("plain_yaml.py",),
    "cloudpickle.loads": ("search/executor.py",),  # of our own workers
    "Image.open": ("data/decode.py",),
    "tar.extractall": ("cli/install_detectron2.py",),  # checked by sha256
}
WITH = {"torch.load": ("weights_only", True), "tar.extractall": ("filter", "data")}


def _calls() -> Iterator[tuple[Path, ast.Call, str]]:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield path, node, ast.unparse(node.func)


def test_no_reader_runs_what_it_reads() -> None:
    seen: set[str] = set()
    for path, node, name in _calls():
        where = f"{path.relative_to(ROOT)}:{node.lineno}: {name}"
        if name in ONLY_IN:
            seen.add(name)
            assert path.as_posix().endswith(ONLY_IN[name] or ("/none",)), where
        if name in WITH:
            key, value = WITH[name]
            given = {k.arg: k.value for k in node.keywords}
            assert isinstance(given.get(key), ast.Constant), where
            assert given[key].value == value, where
    assert {"yaml.load", "cloudpickle.loads", "Image.open", "tar.extractall"} <= seen


# --- folders of others ---


def _trap(folder: Path, name: str, victim: Path) -> None:
    link = folder / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(victim)


def _lock(folder: Path) -> None:
    with RunFolder(folder).locked():
        pass


def _require(folder: Path) -> None:
    (folder / "config.yaml").write_text("SEED: 1")
    RunFolder(folder).require()


def _log(folder: Path) -> None:
    setup_logging(folder, 0)


def _start(folder: Path) -> None:
    start_folder(folder, get_cfg(), None)


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize(
    ("write", "name"),
    [
        (_lock, ".lock"),
        (_lock, "candidates"),
        (_lock, "candidates/abc"),
        (_lock, "search.db"),
        (_lock, "search.db-journal"),
        (_require, "search.db"),
        (_log, "log.txt"),
        (_start, "metrics.json"),
        (_start, "events.out.tfevents.1"),
        (_start, "config.yaml"),
    ],
)
def test_links_out_of_a_folder_are_not_written_to(
    write: Callable[[Path], None], name: str, exists: bool, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    if exists:
        victim.write_text("precious")
    _trap(tmp_path / "run", name, victim)
    with pytest.raises(WriteError, match="is a link out of it") as caught:
        write(tmp_path / "run")
    assert str(victim) in str(caught.value)
    assert victim.exists() == exists
    assert not exists or victim.read_text() == "precious"


def test_links_that_stay_inside_and_folders_that_are_links(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "inner").mkdir()
    (tmp_path / "disk" / "candidates").symlink_to("inner")
    (tmp_path / "disk" / "notes.md").symlink_to(tmp_path)  # none of ours
    _lock(tmp_path / "run")
    assert (tmp_path / "disk" / ".lock").is_file()


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
def test_winners_are_names_in_the_folder(content: str, tmp_path: Path) -> None:
    (tmp_path / "winners.json").write_text(content)
    with pytest.raises(SearchError, match=r"winners\.json"):
        RunFolder(tmp_path).winners()


def test_names_of_winners_are_taken(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for name in ("best", "best_macs_1.5M", "best_params_1e+06", "best_latency_ms_2.5"):
        folder.note_winner(name, ["told"])
    assert len(folder.winners()) == 4


def test_files_json_that_is_none(tmp_path: Path) -> None:
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
def test_stored_trials_are_finished_and_whole(change: dict[str, Any], tmp_path: Path) -> None:
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
def test_tables_that_are_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "warm.csv").write_bytes(content)
    with pytest.raises(SearchError, match="warm start"):
        read_warm_start(SPACE, tmp_path / "warm.csv")


# --- OUTPUT_DIR of a file ---


@pytest.mark.parametrize("main", [train_main, search_main], ids=["train", "search"])
@pytest.mark.parametrize("place", ["{tmp}/elsewhere", "../elsewhere", "x/../../elsewhere"])
def test_a_config_file_does_not_write_elsewhere(
    place: str,
    main: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    path = tmp_path / "configs" / "x.yaml"
    path.write_text(f"OUTPUT_DIR: {place.format(tmp=tmp_path)}\n")
    assert run_main(main, ["--config-file", str(path)]) == 2
    assert "a file may not write elsewhere, give it as argument" in capsys.readouterr().err
    assert not (tmp_path / "elsewhere").exists()
    # the command line may: refused for its data sets, later
    argv = ["--config-file", str(path), "DATASETS.TRAIN", "nowhere", "OUTPUT_DIR", "../elsewhere"]
    assert run_main(main, argv) == 2
    told = capsys.readouterr().err
    assert "nowhere" in told or "DATASETS" in told


def test_links_do_not_hide_where_output_dir_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    os.symlink(tmp_path, "out")
    with pytest.raises(ConfigError, match="OUTPUT_DIR out/x"):
        check_output_dir("out/x", Path("x.yaml"))


@pytest.mark.parametrize("place", ["", "output/x", "{tmp}/run/best", "{tmp}/run"])
def test_places_that_a_config_file_may_name(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    check_output_dir(place.format(tmp=tmp_path), tmp_path / "run" / "best.yaml")


# --- other places that a search's file names ---

ELSEWHERE = [
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
    """The current folder, with two beside it."""
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


@pytest.mark.parametrize(("key", "value"), ELSEWHERE)
def test_a_file_names_no_place_elsewhere_and_no_address(
    key: str, value: str, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    value = value.format(tmp=work.parent)
    path = _search_config(work.parent / "configs", key, value)
    assert run_main(search_main, ["--config-file", str(path)]) == 2
    words = shlex.join([f"SEARCH.{key}", value])
    assert capsys.readouterr().err.endswith(f"give it as argument: {words}\n")
    assert list((work.parent / "victim").iterdir()) == list(work.iterdir()) == []
    # the words that it told are taken
    cfg = search_cli._read_config(str(path), [f"SEARCH.{key}", value])
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
def test_a_file_names_places_near_it(key: str, value: str, work: Path) -> None:
    value = value.format(tmp=work.parent)
    path = _search_config(work.parent / "configs", key, value)
    assert get_value(search_cli._read_config(str(path), []), f"SEARCH.{key}") == value


@pytest.mark.parametrize("link", ["x.db", "x.db-journal", ".x.db.lock"])
def test_links_beside_a_storage_that_a_file_names(link: str, work: Path) -> None:
    (work / "data").mkdir()
    (work / "data" / link).symlink_to(work.parent / "victim" / "x")
    path = _search_config(work.parent / "configs", "STORAGE", "sqlite:///data/x.db")
    with pytest.raises((ConfigError, WriteError)):
        search_cli._read_config(str(path), [])


def test_a_password_is_not_repeated(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _search_config(work, "STORAGE", "postgresql://me:secret@attacker.invalid/db")
    assert run_main(search_main, ["--config-file", str(path)]) == 2
    told = capsys.readouterr().err
    assert "me:***@attacker.invalid" in told
    assert "secret" not in told


@pytest.mark.parametrize("flags", [["--report"], ["--evolve"]], ids=["report", "evolve"])
@pytest.mark.parametrize("has", ["nothing", "tables", "another study", "no file"])
def test_a_run_of_others_leaves_databases_alone(
    flags: list[str], has: str, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    victim = work.parent / "victim" / "x.sqlite"
    url = f"sqlite:///{victim}"
    if has == "another study":
        OptunaStore(url, SPACE, "other")
    elif has != "no file":
        with contextlib.closing(sqlite3.connect(victim)) as file:
            file.execute("CREATE TABLE places (name)" if has == "tables" else "VACUUM")
    before = victim.read_bytes() if victim.exists() else None
    folder = work / "theirs"
    folder.mkdir()
    _search_config(folder, "STORAGE", url).rename(folder / "config.yaml")
    argv = [*flags, str(folder), *(["--macs", "1e6"] if flags == ["--evolve"] else [])]
    assert run_main(search_main, argv) == 2
    assert f"give it as argument: SEARCH.STORAGE {url}" in capsys.readouterr().err
    # not even where it is named by who should know, nor where it lies in the current folder
    assert run_main(search_main, [*flags, str(folder), "SEARCH.STORAGE", url, *argv[2:]]) == 2
    assert "holds no study 'jointnas'" in capsys.readouterr().err
    _search_config(folder, "STORAGE", "sqlite:///x.sqlite").rename(folder / "config.yaml")
    if before is not None:
        shutil.copy(victim, work)
    assert run_main(search_main, argv) == 2
    assert "holds no study 'jointnas'" in capsys.readouterr().err
    for path in (victim, work / "x.sqlite"):
        assert (path.read_bytes() if path.exists() else None) == before
    assert [path.name for path in victim.parent.iterdir()] == ["x.sqlite"] * (before is not None)


# --- the report ---


def test_nothing_of_others_becomes_html(tmp_path: Path) -> None:
    space = SearchSpace([Choice(EVIL, [EVIL, "b"], part="recipe")])
    search = JointNAS(space, batch_size=2, iterations=1, pool_size=2, finalists=0)
    scores = iter([1.0, None])
    result = search.run(lambda trial: next(scores))
    for trial in result.trials:
        trial.id, trial.statistics = EVIL, {EVIL: 1.0}
        trial.reason = EVIL if trial.state == "failed" else None
    about = About(
        title=EVIL,
        score=EVIL,
        facts={EVIL: EVIL},
        resume=EVIL,
        commands={EVIL: EVIL},
        winners=(Winner(EVIL, (EVIL,), EVIL),),
    )
    write_report(tmp_path / "report.html", space, result, about)
    text = (tmp_path / "report.html").read_text()
    seen = _Seen()
    seen.feed(text)
    assert text.count("&lt;script&gt;alert(1)") > 10
    assert seen.tags["script"] == 1  # the page's own
    assert seen.tags["img"] == 0
    assert not [name for name in seen.attributes if name.startswith("on")]
    assert "{{ 7 * 7 }}" in seen.texts


class _Seen(HTMLParser):
    """Counts what a browser would see as tags and attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags, self.attributes = Counter[str](), Counter[str]()
        self.texts = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes.update(name for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.texts += data


def test_names_do_not_steer_the_terminal() -> None:
    assert printable("Käse 猫\n") == "Käse 猫\n"
    assert printable("a\x1b]52;c;eA==\x07b\r\u202e\udcff") == (
        r"a\x1b]52;c;eA==\x07b\r\u202e\udcff"
    )


# --- files ---


def test_only_regular_files_of_a_size_are_opened(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12345")
    with open_regular(tmp_path / "x", 5) as file:
        assert file.read() == b"12345"
    os.mkfifo(tmp_path / "pipe")
    for path, most, says in (
        (tmp_path / "x", 4, "5 bytes; allowed: 4"),
        (tmp_path / "pipe", 5, "not a regular file"),
        (Path("/dev/zero"), 5, "not a regular file"),
    ):
        with pytest.raises(OSError, match=says), open_regular(path, most):
            pass
