"""Atomic writes: a file has the old or the new content, even after errors and kills."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from fbnetv3.io import WriteError, atomic_write, check_writable


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "file.txt"
    for text in ("first", "second"):
        with atomic_write(target) as temporary:
            assert temporary.parent == target.parent
            assert temporary != target
            temporary.write_text(text)
        assert target.read_text() == text
    assert names(target.parent) == ["file.txt"]


def test_the_path_may_be_a_string(tmp_path: Path) -> None:
    with atomic_write(str(tmp_path / "file.txt")) as temporary:
        temporary.write_text("text")
    assert (tmp_path / "file.txt").read_text() == "text"


def test_readers_see_the_old_content_until_the_end(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")
    with atomic_write(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"


@pytest.mark.parametrize("error", [ValueError("wrong"), KeyboardInterrupt()])
def test_a_failing_body_keeps_the_old_content(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")

    def write() -> None:
        with atomic_write(target) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(type(error)):
        write()
    assert target.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_keeps_the_old_content(tmp_path: Path, monkeypatch, call: str) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(WriteError) as error, atomic_write(target) as temporary:
        temporary.write_text("new")
    monkeypatch.undo()
    message = str(error.value)
    assert str(target) in message
    assert "No space left on device" in message
    assert "\n" not in message
    assert target.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_the_file_is_synced_before_it_gets_its_name(tmp_path: Path, monkeypatch) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def recorded_fsync(fd: int) -> None:
        calls.append("fsync folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "fsync file")
        fsync(fd)

    def recorded_replace(source: Path, target: Path) -> None:
        calls.append("replace")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "replace", recorded_replace)
    with atomic_write(tmp_path / "file.txt") as temporary:
        temporary.write_text("new")
    assert calls == ["fsync file", "replace", "fsync folder"]


def test_the_folder_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(WriteError, match="cannot write"),
        atomic_write(tmp_path / "file" / "a.txt"),
    ):
        pytest.fail("the body must not run")


def test_the_target_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(WriteError, match="taken"), atomic_write(tmp_path / "taken") as temporary:
        temporary.write_text("x")
    assert names(tmp_path) == ["taken"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with (
        pytest.raises(WriteError, match="Permission denied; free space or choose a writable"),
        atomic_write(tmp_path / "a.txt"),
    ):
        pytest.fail("the body must not run")
    tmp_path.chmod(0o700)


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "file.txt") as temporary:
            temporary.write_text("x")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "file.txt").stat().st_mode) == 0o640


_WRITER = """
import sys
from fbnetv3.io import atomic_write
with atomic_write(sys.argv[1]) as temporary, temporary.open("w") as file:
    file.write("half of the new content")
    file.flush()
    print("halfway", flush=True)
    sys.stdin.read()
"""


def test_sigkill_in_the_middle_keeps_the_old_content(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")
    command = [sys.executable, "-c", _WRITER, str(target)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "halfway\n"
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert target.read_text() == "old"
    leftovers = [name for name in names(tmp_path) if name != "file.txt"]
    assert len(leftovers) == 1  # the process was killed while writing
    assert leftovers[0].startswith(".file.txt.")
    with atomic_write(target) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new"


def test_check_writable_reports_what_cannot_be_written(tmp_path: Path) -> None:
    target = tmp_path / "new" / "file.txt"
    check_writable(target)
    assert names(target.parent) == []
    for path in (tmp_path, Path("/proc/no/such")):
        with pytest.raises(WriteError, match=f"cannot write {path}: "):
            check_writable(path)


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(2, "No such file or directory", "another"),
        ConnectionResetError(104, "Connection reset by peer"),
        OSError("an error of requests"),
    ],
)
def test_errors_of_the_body_about_other_things_stay_as_they_are(error, tmp_path):
    with pytest.raises(type(error)) as caught, atomic_write(tmp_path / "x"):
        raise error
    assert caught.value is error
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_in_the_body_is_an_error_of_the_target(tmp_path):
    with (
        pytest.raises(WriteError, match=r"cannot write .*x: No space"),
        atomic_write(tmp_path / "x"),
    ):
        raise OSError(28, "No space left on device")
