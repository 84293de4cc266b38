"""Standard output and error that are closed, full, or whose reader has ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fbnetv3.signals import stop_signals
from tests.conftest import ROOT

MAIN = """\
import sys
from pathlib import Path
from fbnetv3.cli import run_main
from fbnetv3.errors import FBNetError

def main(argv):
    {body}
    return 0

sys.exit(run_main(main))
"""
BODIES = {
    "one line": "print('result')",
    "flushed": "print('result', flush=True)",
    "long": "[print('x' * 1000) for _ in range(1000)]",
    "written": "sys.stdout.write('result')",
    "help": "import argparse; argparse.ArgumentParser().parse_args(['--help'])",
    "table": "from rich.console import Console; Console().print('result')",
}


def run(tmp_path: Path, body: str, redirection: str) -> subprocess.CompletedProcess[str]:
    """Runs a command with the given body under a shell's redirection."""
    script = tmp_path / "main.py"
    script.write_text(MAIN.format(body=body))
    command = f"'{sys.executable}' '{script}' {redirection}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        ["bash", "-c", command], env=environment, cwd=tmp_path, capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize(
    ("redirection", "reason"),
    [
        ("> /dev/full", "No space left on device"),
        (">&-", "it is closed"),
        ("1>&2 2>&1 | true", ""),
        ("| (exec <&-; sleep 1); exit ${PIPESTATUS[0]}", "Broken pipe"),
    ],
    ids=["full", "closed", "as usual", "no reader"],
)
def test_output_that_cannot_be_written_is_one_line(
    tmp_path: Path, body: str, redirection: str, reason: str
) -> None:
    ran = run(tmp_path, BODIES[body], redirection)
    if reason:
        # a text in the pipe's buffer when the reader ends is lost without an error
        assert ran.stderr == f"error: cannot write to standard output: {reason}\n"
        assert ran.returncode == 2
    else:
        assert ran.returncode == 0


@pytest.mark.parametrize("redirection", ["2> /dev/full", "2>&-", "2>&- 0<&-"])
@pytest.mark.parametrize(
    ("body", "status"),
    [("print('hint', file=sys.stderr); print('result')", 0), ("raise FBNetError('wrong')", 2)],
)
def test_a_closed_standard_error_ends_nothing(
    tmp_path: Path, redirection: str, body: str, status: int
) -> None:
    ran = run(tmp_path, body, redirection)
    assert ran.returncode == status
    assert ran.stdout == ("" if status else "result\n")
    assert ran.stderr == ""


def test_files_do_not_become_standard_output(tmp_path: Path) -> None:
    body = "file = open('data', 'w'); assert file.fileno() > 2; __import__('os').write(1, b'x')"
    assert run(tmp_path, body, ">&- 2>&- <&-").returncode == 0
    assert (tmp_path / "data").read_text() == ""


def test_full_memory_is_one_line(tmp_path: Path) -> None:
    ran = run(tmp_path, "raise MemoryError", "")
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)
    assert "memory" in ran.stderr


def test_a_hangup_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        assert signal.SIGHUP in stop_signals()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
        assert stop_signals() == (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGHUP, before)
