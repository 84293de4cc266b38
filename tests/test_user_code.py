"""Import of a user's code: files and modules, one line per defect, and other processes."""

from __future__ import annotations

import logging
import multiprocessing
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fbnetv3.registries import LOSSES
from fbnetv3.user_code import (
    CallableWithUserCode,
    UserCode,
    UserCodeError,
    import_user_code,
    imported_names,
    record_user_code,
    user_code_changes,
)

LOSS = """
from fbnetv3 import register_loss

@register_loss("{name}")
def loss(logits, targets):
    return {value}

class Scorer:
    def __call__(self, x):
        return x + {value}
"""


@pytest.fixture
def file(tmp_path):
    """Returns a function that writes a file of a given source."""

    def write(source: str, name: str = "mine.py") -> str:
        path = tmp_path / name
        path.write_text(source)
        return str(path)

    return write


def test_a_file_registers_once_and_again_after_a_change(file):
    path = file(LOSS.format(name="test/loss", value=1))
    for _ in range(2):
        import_user_code([path])
    assert LOSSES.get("test/loss")(0, 0) == 1
    import_user_code([file(LOSS.format(name="test/loss", value=2))])
    assert LOSSES.get("test/loss")(0, 0) == 2
    assert imported_names() == [path]


def test_a_module_and_the_neighbour_of_a_file(file, tmp_path, monkeypatch):
    file("VALUE = 7", "neighbour_of_mine.py")
    import_user_code([file("import neighbour_of_mine\n" + LOSS.format(name="test/l", value=7))])
    assert LOSSES.get("test/l")(0, 0) == 7
    file(LOSS.format(name="test/module", value=3), "module_of_mine.py")
    import_user_code(["module_of_mine"])
    assert imported_names()[1] == "module_of_mine"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1\nx = undefined\n", r"mine.py, line 2: NameError: name 'undefined'"),
        ("x = (\n", r"mine.py, line 1: SyntaxError: '\(' was never closed"),
        ("import no_such_package\n", r"line 1: ModuleNotFoundError: No module named 'no_such_p"),
        ("raise SystemExit('a\\nb')", r"line 1: SystemExit: a$"),
        (LOSS.format(name="cross_entropy", value=1), r"line 4: Reg.*'cross_entropy' is built in"),
        (LOSS.format(name="a b", value=1), r"line 4: RegistryError: loss name 'a b' is not all"),
        ("\0", "SyntaxError: source code string cannot contain null bytes"),
    ],
)
def test_a_file_that_does_not_import_gives_one_line(file, source, message):
    with pytest.raises(UserCodeError, match=message) as caught:
        import_user_code([file(source)])
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("--import /")
    assert imported_names() == []


def test_a_name_of_another_file_is_taken(file):
    import_user_code([file(LOSS.format(name="test/taken", value=1))])
    other = file(LOSS.format(name="test/taken", value=2), "other.py")
    with pytest.raises(UserCodeError, match=r"is already registered in .*mine.py, line 4; choose"):
        import_user_code([other])


@pytest.mark.parametrize("name", ["no_such_module_of_mine", "a b", "", "/no/such/file.py", "/"])
def test_what_is_neither_a_module_nor_a_file(name):
    with pytest.raises(UserCodeError, match=r"no such module; give a path|cannot read /no/such"):
        import_user_code([name])


def test_a_file_that_registers_nothing_is_reported(file, caplog):
    with caplog.at_level(logging.WARNING, "fbnetv3"):
        import_user_code([file("x = 1\n")])
        import_user_code([file("x = 1\n")])
    assert [r.message for r in caplog.records if "registers nothing; decorate" in r.message] != []
    assert len(caplog.records) == 1


def _score(scorer, queue):
    queue.put((scorer(1), LOSSES.get("test/spawned")(0, 0)))


def test_other_processes_import_the_code_before_they_unpickle(file):
    import_user_code([file(LOSS.format(name="test/spawned", value=5))])
    module = next(m for name, m in sys.modules.items() if name.startswith("fbnetv3_import_mine"))
    Path(imported_names()[0]).unlink()  # another machine need not have the file
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    scorer = CallableWithUserCode(module.Scorer())
    process = context.Process(target=_score, args=(scorer, queue))
    process.start()
    assert queue.get(timeout=60) == (6, 5)
    process.join()


def test_code_is_unpickled_without_a_second_run(file):
    import_user_code([file(LOSS.format(name="test/once", value=5))])
    before = LOSSES.registrations
    assert pickle.loads(pickle.dumps(UserCode())).modules == UserCode().modules
    assert LOSSES.registrations == before


def test_a_run_folder_records_the_code_and_names_its_changes(file, tmp_path):
    record_user_code(tmp_path)
    assert not (tmp_path / "imports.json").exists()
    path = file(LOSS.format(name="test/record", value=1))
    import_user_code([path])
    record_user_code(tmp_path)
    assert user_code_changes(tmp_path) == ""
    import_user_code([file(LOSS.format(name="test/record", value=2))])
    assert user_code_changes(tmp_path).startswith("mine.py has changed (sha256 ")
    (tmp_path / "other").mkdir()
    other = file(LOSS.format(name="test/other", value=1), "other/mine.py")
    import_user_code([other])
    record_user_code(tmp_path)
    file(LOSS.format(name="test/other", value=3), "other/mine.py")
    assert user_code_changes(tmp_path) == ""
    import_user_code([other])
    assert re.match(
        r"mine.py has changed \(sha256 \w{12}, \w{12} before", user_code_changes(tmp_path)
    )
    (tmp_path / "imports.json").write_text('{"mine.py": ["00", "00", "00"]}')
    assert user_code_changes(tmp_path) == "mine.py is not imported now: add --import mine.py"
    (tmp_path / "imports.json").write_text('{"gone.py": "00"}')
    assert user_code_changes(tmp_path) == "gone.py is not imported now: add --import gone.py"
    (tmp_path / "imports.json").write_text("[1]")
    with pytest.raises(UserCodeError, match=r"imports.json is damaged .*; remove it"):
        user_code_changes(tmp_path)


def test_the_package_and_its_decorators_import_quickly_and_without_torch():
    code = (
        "import sys, fbnetv3; from fbnetv3 import register_loss, register_network, register_space;"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
