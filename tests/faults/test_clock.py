"""A clock that jumps, by libfaketime: that of the host stays as it is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.search import problem

ROOT = Path(__file__).resolve().parent.parent.parent
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
    # libfaketime 0.9.10 breaks time.sleep where the monotonic clock stays true
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


def test_a_search_under_a_clock_that_jumps(tmp_path: Path, moved_clock: dict[str, str]) -> None:
    wanted = problem.summary(problem.search().run(problem.evaluate))
    done = subprocess.run(
        [sys.executable, "-c", SEARCH, str(tmp_path)],
        cwd=ROOT, env=moved_clock, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(json.dumps(wanted))
    times = [float(line) for line in (tmp_path / "times").read_text().split()]
    assert max(times) - min(times) > 700 * 86400, "the clock was not moved"
