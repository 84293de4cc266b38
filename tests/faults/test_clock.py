"""A search under a wall clock that jumps; libfaketime leaves the clock of the host alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.search import problem

ROOT = Path(__file__).resolve().parents[2]
SEARCH = """
import json, select, sys, time
from pathlib import Path
from fbnetv3.search import LocalWorkers
from tests.search import problem

folder = Path(sys.argv[1])
jumps = {4: "+400d", 9: "-400d", 14: "+0"}

def evaluate(trial):
    if trial.number in jumps:
        (folder / "clock").write_text(jumps[trial.number])
    # libfaketime 0.9.10 breaks time.sleep when it leaves the monotonic clock alone.
    select.select([], [], [], 0.1)
    with (folder / "times").open("a") as file:
        file.write(f"{time.time()}\\n")
    return problem.evaluate(trial)

if __name__ == "__main__":
    search = problem.search(
        storage=f"sqlite:///{folder}/search.db", executor=LocalWorkers(2, timeout=60)
    )
    print(json.dumps(problem.summary(search.run(evaluate))))
"""


def test_a_search_is_the_same_under_a_clock_that_jumps(
    tmp_path: Path, moved_clock: dict[str, str]
) -> None:
    expected = problem.summary(problem.search().run(problem.evaluate))
    process = subprocess.run(
        [sys.executable, "-c", SEARCH, str(tmp_path)],
        cwd=ROOT, env=moved_clock, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout) == json.loads(json.dumps(expected))
    times = [float(line) for line in (tmp_path / "times").read_text().split()]
    assert max(times) - min(times) > 700 * 86400, "the clock was not moved"
