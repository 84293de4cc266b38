"""Untrusted files: safe readers in the source code, run folders, OUTPUT_DIR and the report.

Files of a single kind are tested in test_plain_yaml.py, and in test_untrusted.py of weights, data,
detection and search/fbnet.
"""

from __future__ import annotations

import ast
import os
from collections import Counter
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fbnetv3.cli import printable, run_main
from fbnetv3.cli.search import main as search_main
from fbnetv3.cli.train import main as train_main
from fbnetv3.config import ConfigError, get_cfg
from fbnetv3.config.files import check_output_dir
from fbnetv3.engine.folder import start_folder
from fbnetv3.engine.logs import setup_logging
from fbnetv3.io import WriteError, open_regular
from fbnetv3.search import Choice, JointNAS, SearchSpace
from fbnetv3.search.fbnet.run_folder import RunFolder
from fbnetv3.search.report import About, Winner, write_report

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted([*(ROOT / "fbnetv3").rglob("*.py"), *(ROOT / "tools").glob("*.py")])
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)> {{ 7 * 7 }}"

# Function -> the only files that may call it.
ONLY_IN: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(["eval", "exec", "compile", "marshal.loads", "os.system", "shelve.open"], ()),
    **dict.fromkeys(["yaml.safe_load", "yaml.full_load", "yaml.unsafe_load", "np.load"], ()),
    **dict.fromkeys(["pickle.load", "pickle.loads", "joblib.load"], ()),
    "torch.jit.load": ("export/torch_files.py",),  # a file that the same command has written
    **dict.fromkeys(["DetectionCheckpointer", "build_detection_train_loader"], ()),
    **dict.fromkeys(["shutil.unpack_archive", "archive.extractall", "archive.extract"], ()),
    "yaml.load": ("plain_yaml.py",),
    "cloudpickle.loads": ("search/executors/worker.py",),  # sent by the main process
    "Image.open": ("data/decode.py",),
    **dict.fromkeys(["decode_jpeg", "simplejpeg.decode_jpeg"], ("data/jpeg.py",)),
    "tar.extractall": ("cli/detectron2/install.py",),  # checked by sha256
}
# Function -> the argument that it must be called with.
WITH = {"torch.load": ("weights_only", True), "tar.extractall": ("filter", "data")}


def _calls() -> Iterator[tuple[Path, ast.Call, str]]:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield path, node, ast.unparse(node.func)


def test_no_reader_runs_code_of_its_files() -> None:
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


# File -> the reason for which it may read files without the opener of untrusted files.
OTHER_READERS = {
    "fbnetv3/arch/registry.py": "files of the package",
    "fbnetv3/weights/records.py": "files of the package",
    "fbnetv3/weights/detector_records.py": "files of the package",
    "fbnetv3/weights/download.py": "files of the user's cache",
    "fbnetv3/zoo/points.py": "files of the package",
    "fbnetv3/zoo/adding.py": "a file that read_tensors has opened",
    "fbnetv3/search/storage/study_lock.py": "lock files, checked by refuse_links_out",
    "fbnetv3/benchmark/machine.py": "files of the kernel",
    "fbnetv3/benchmark/measures.py": "files of the kernel",
    "fbnetv3/export/int8.py": "files of the kernel",
    "fbnetv3/cli/zoo.py": "a page of this repository",
    "fbnetv3/cli/demo.py": "metrics that the demo has written",
    "fbnetv3/cli/detectron2/install.py": "an archive whose hash is checked",
}


def test_files_are_read_through_one_opener() -> None:
    for path, node, name in _calls():
        file = path.relative_to(ROOT).as_posix()
        is_reader = name.endswith((".read_text", ".read_bytes")) and name != "io.read_text"
        assert not is_reader or file in OTHER_READERS, f"{file}:{node.lineno}: {name}"


def test_sqlite_files_are_opened_behind_their_guard() -> None:
    for path, node, name in _calls():
        file = path.relative_to(ROOT).as_posix()
        if name in ("sqlite3.connect", "RDBStorage", "optuna.create_study", "optuna.load_study"):
            assert file.startswith("fbnetv3/search/storage/"), f"{file}:{node.lineno}: {name}"
        if name == "RDBStorage":
            assert file.endswith("database.py"), f"{file}:{node.lineno}"


# --- run folders ---


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
def test_links_out_of_a_folder_are_not_followed_when_writing(
    write: Callable[[Path], None], name: str, exists: bool, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    if exists:
        victim.write_text("precious")
    _trap(tmp_path / "run", name, victim)
    with pytest.raises(WriteError, match=r"is a link to .*, outside of the folder") as caught:
        write(tmp_path / "run")
    assert str(victim) in str(caught.value)
    assert victim.exists() == exists
    assert not exists or victim.read_text() == "precious"


@pytest.mark.parametrize(
    ("write", "name"),
    [(_lock, ".lock"), (_lock, "search.db"), (_log, "log.txt"), (_start, "metrics.json")],
)
def test_pipes_are_not_opened_for_writing(
    write: Callable[[Path], None], name: str, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    os.mkfifo(tmp_path / "run" / name)
    with pytest.raises(WriteError, match=rf"{name} is a pipe, a device or a socket"):
        write(tmp_path / "run")


def test_links_inside_a_folder_and_a_folder_that_is_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "inner").mkdir()
    (tmp_path / "disk" / "candidates").symlink_to("inner")
    (tmp_path / "disk" / "notes.md").symlink_to(tmp_path)  # a name that is never written
    _lock(tmp_path / "run")
    assert (tmp_path / "disk" / ".lock").is_file()


# --- OUTPUT_DIR in a config file ---


@pytest.mark.parametrize("main", [train_main, search_main], ids=["train", "search"])
@pytest.mark.parametrize("place", ["{tmp}/elsewhere", "../elsewhere", "x/../../elsewhere"])
def test_a_config_file_cannot_set_output_dir_outside_of_its_folder(
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
    message = "nor below the folder of the config file; give it on the command line"
    assert message in capsys.readouterr().err
    assert not (tmp_path / "elsewhere").exists()
    # The command line may set it: the run fails later, for lack of its data sets.
    argv = ["--config-file", str(path), "DATASETS.TRAIN", "nowhere", "OUTPUT_DIR", "../elsewhere"]
    assert run_main(main, argv) == 2
    message = capsys.readouterr().err
    assert "nowhere" in message or "DATASETS" in message


def test_links_in_output_dir_are_resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    os.symlink(tmp_path, "out")
    with pytest.raises(ConfigError, match="OUTPUT_DIR out/x"):
        check_output_dir("out/x", Path("x.yaml"))


@pytest.mark.parametrize("place", ["", "output/x", "{tmp}/run/best", "{tmp}/run"])
def test_values_of_output_dir_that_a_config_file_may_set(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    check_output_dir(place.format(tmp=tmp_path), tmp_path / "run" / "best.yaml")


# --- the report ---


def test_untrusted_text_does_not_become_html(tmp_path: Path) -> None:
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
    page = _Page()
    page.feed(text)
    assert text.count("&lt;script&gt;alert(1)") > 10
    assert page.tags["script"] == 1  # the script of the report itself
    assert page.tags["img"] == 0
    assert not [name for name in page.attributes if name.startswith("on")]
    assert "{{ 7 * 7 }}" in page.texts


class _Page(HTMLParser):
    """Counts the tags and attributes that a browser would see."""

    def __init__(self) -> None:
        super().__init__()
        self.tags, self.attributes = Counter[str](), Counter[str]()
        self.texts = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes.update(name for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.texts += data


def test_control_characters_are_escaped_in_the_terminal() -> None:
    assert printable("Käse 猫\n") == "Käse 猫\n"
    assert printable("a\x1b]52;c;eA==\x07b\r\u202e\udcff") == (
        r"a\x1b]52;c;eA==\x07b\r\u202e\udcff"
    )


# --- files ---


def test_only_regular_files_up_to_a_size_are_opened(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12345")
    with open_regular(tmp_path / "x", 5) as file:
        assert file.read() == b"12345"
    os.mkfifo(tmp_path / "pipe")
    for path, max_bytes, message in (
        (tmp_path / "x", 4, "5 bytes; allowed: 4"),
        (tmp_path / "pipe", 5, "not a regular file"),
        (Path("/dev/zero"), 5, "not a regular file"),
    ):
        with pytest.raises(OSError, match=message), open_regular(path, max_bytes):
            pass
