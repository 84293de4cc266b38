"""Scripts whose workers cannot start: one error, and no trial that counts as failed."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

_HEAD = """\
import sys
from fbnetv3.errors import FBNetError
from fbnetv3.search import FloatRange, LocalWorkers, SearchSpace

def evaluate(trial):
    return -trial.config["x"]

def search():
    from fbnetv3.search import JointNAS  # imports torch, which workers need not
    return JointNAS(SearchSpace([FloatRange("x", 0.0, 1.0)]), batch_size=3, iterations=1,
                    finalists=0, pool_size=64, executor=LocalWorkers(2), storage="sqlite:///s.db")
"""
_NO_GUARD = """
try:
    print("END", [t.state for t in search().run(evaluate).trials])
except FBNetError as error:
    sys.exit(f"error: {error}")
"""
_RAISES_AT_IMPORT = """
if __name__ != "__main__":
    raise ValueError("a module that cannot be imported twice")
try:
    search().run(evaluate)
except FBNetError as error:
    sys.exit(f"error: {error}")
"""
_KILLED_AT_IMPORT = """
import os, signal
if __name__ != "__main__":
    os.kill(os.getpid(), signal.SIGKILL)
try:
    search().run(evaluate)
except FBNetError as error:
    sys.exit(f"error: {error}")
"""


def _run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "script.py").write_text(code)
    return subprocess.run(
        [sys.executable, "script.py"],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.slow
def test_a_script_that_workers_cannot_import_gives_one_error_and_no_failed_trials(
    tmp_path: Path,
) -> None:
    for code, text, tracebacks in (
        (_NO_GUARD, 'if __name__ == "__main__":', 0),
        (_RAISES_AT_IMPORT, "a worker process cannot start: it stopped with exit", 2),
        (_KILLED_AT_IMPORT, "a worker process cannot start: it was ended by SIGKILL", 0),
    ):
        broken = _run(_HEAD + code, tmp_path)
        assert broken.returncode == 1
        errors = [line for line in broken.stderr.splitlines() if line.startswith("error:")]
        assert len(errors) == 1
        assert text in errors[0]
        assert broken.stderr.count("Traceback") <= tracebacks
        with sqlite3.connect(tmp_path / "s.db") as database:
            assert database.execute("SELECT count(*) FROM trials").fetchone() == (0,)
    mended = _run(
        f"{_HEAD}\nif __name__ == '__main__':\n    print(search().run(evaluate).best.state)",
        tmp_path,
    )
    assert (mended.returncode, mended.stdout) == (0, "complete\n")
