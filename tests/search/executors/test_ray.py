"""What only a cluster has: nodes that die, that lack the run's folder, or that have no room."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fbnetv3.search import SearchError, Trial
from fbnetv3.search.executors.ray_cluster import Cluster
from fbnetv3.search.executors.ray_node import Here
from tests.processes import Start, finish
from tests.search import problem
from tests.search.executors.ray_clusters import imported, ray_workers

# Two nodes with room for one candidate each; the second is killed when both are at work.
SCRIPT = """
import json, sys, time
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from fbnetv3.search import RayWorkers
from tests.search import problem

folder = Path(sys.argv[1])

def evaluate(trial):
    with (folder / "begun").open("a") as file:
        file.write(f"{trial.id}\\n")
    trial.report(1, 0.0)
    time.sleep(1.0)
    return problem.evaluate(trial)

if __name__ == "__main__":
    node = {"num_cpus": 1, "object_store_memory": 100_000_000, "include_dashboard": False}
    soon = {"health_check_period_ms": 500, "health_check_failure_threshold": 3}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "_system_config": soon})
    second = [cluster.add_node(**node)]
    ray.init(address=cluster.address, log_to_driver=False)
    finished, seen = [], set()

    def watch(event, trial):
        if event == "finish":
            finished.append(trial.number)
        if event == "report":
            seen.add(trial.number)
        if second and len(seen - set(finished)) == 2 and len(finished) >= 3:
            cluster.remove_node(second.pop(), allow_graceful=False)

    workers = RayWorkers(shared=folder)
    result = problem.search(executor=workers, watch=watch).run(evaluate)
    told = {"finished": finished, "summary": problem.summary(result), "killed": not second}
    (folder / "result.json").write_text(json.dumps(told))
    ray.shutdown()
    cluster.shutdown()
"""


@pytest.mark.slow
@pytest.mark.timeout(480)
def test_a_node_that_dies_loses_and_doubles_no_trial(tmp_path: Path, start: Start) -> None:
    imported()
    script = tmp_path / "search.py"
    script.write_text(SCRIPT)
    finish(start([sys.executable, str(script), str(tmp_path)]))
    told = json.loads((tmp_path / "result.json").read_text())
    alone = json.loads(json.dumps(problem.summary(problem.search().run(problem.evaluate))))
    assert told["killed"]
    assert told["summary"] == alone
    assert sorted(told["finished"]) == [row[0] for row in alone]
    begun = (tmp_path / "begun").read_text().split()
    # what ran on the node was begun once more, and nothing else
    assert len(begun) == len(alone) + 1
    assert set(begun) == {row[1] for row in alone}
    assert not list(tmp_path.glob(".ray_*"))


def _one() -> list[Trial]:
    return [Trial("0", 0, 0, {})]


@pytest.mark.parametrize(
    ("here", "words"),
    [
        (Here("/no/such", {}, None), "has no folder /no/such, the search's working directory"),
        (Here("/", {}, Path("/no/run/.mark")), "does not see the run folder /no/run"),
    ],
)
def test_a_node_that_lacks_a_folder_is_one_error(here: Here, words: str) -> None:
    workers = ray_workers(2)
    workers._here = here  # as on a node where these are not
    with pytest.raises(SearchError, match=words) as error:
        workers.run(lambda trial: 1.0, _one(), lambda *result: None)
    assert "must be at the same path on all nodes" in str(error.value)
    assert "\n" not in str(error.value)


def test_workers_get_the_variables_that_name_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers, scores = ray_workers(1, shared=tmp_path), []
    monkeypatch.setenv("FBNETV3_DATA", "12.0")
    workers.run(
        lambda trial: float(os.environ["FBNETV3_DATA"]), _one(), lambda *r: scores.append(r[1])
    )
    workers.close()
    assert scores == [12.0]
    assert list(tmp_path.iterdir()) == []  # the mark is gone


def _scores(workers: Any, evaluate: object, numbers: range) -> list[tuple]:
    found: list[tuple] = []
    trials = [Trial(str(i), i, 0, {}) for i in numbers]
    workers.run(evaluate, trials, lambda t, score, reason: found.append((t.number, score, reason)))
    return sorted(found)


def _is_ending(pid: int) -> bool:
    """Tells whether a killed process is not yet one that its parent can wait for."""
    folder = Path(f"/proc/{pid}")
    try:
        state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        # the first thread may be a zombie while others still end
        return state not in "ZX" or len(list((folder / "task").iterdir())) > 1
    except FileNotFoundError:
        return False


def test_a_process_that_dies_idle_costs_no_attempt(tmp_path: Path) -> None:
    def evaluate(trial: Trial) -> float:
        with (tmp_path / "begun").open("a") as file:
            file.write(f"{trial.id}\n")
        if trial.number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return float(os.getpid())

    workers = ray_workers(1)
    pid = int(_scores(workers, evaluate, range(1))[0][1])
    os.kill(pid, signal.SIGKILL)
    while _is_ending(pid):
        time.sleep(0.05)
    found = _scores(workers, evaluate, range(1, 2))
    workers.close()
    assert found == [(1, None, "its worker was ended by SIGKILL, twice")]
    assert (tmp_path / "begun").read_text().split() == ["0", "1", "1"]


@pytest.mark.slow
def test_many_workers_lost_while_idle_cost_nothing(tmp_path: Path) -> None:
    """As with a large node that is lost between two batches."""
    count = 12  # more than may fail one after the other

    def evaluate(trial: Trial) -> float:
        (tmp_path / trial.id).touch()
        deadline = time.monotonic() + 240.0
        while len(os.listdir(tmp_path)) < count and time.monotonic() < deadline:
            time.sleep(0.1)
        return 1.0

    workers = ray_workers(count, cpus=0.1)
    _scores(workers, evaluate, range(count))
    assert len(workers._seats) == count
    for seat in workers._seats:
        imported().kill(seat.actor)
    found = _scores(workers, evaluate, range(count, 2 * count))
    workers.close()
    assert found == [(number, 1.0, None) for number in range(count, 2 * count)]


# Ray counts GPUs that a machine is said to have, whether or not it has them.
GPUS = """
import json, os, sys, time
from pathlib import Path
import ray
from fbnetv3.search import RayWorkers, Trial

folder, together = Path(sys.argv[1]), int(sys.argv[3])
gpus = None if sys.argv[2] == "None" else float(sys.argv[2])

def evaluate(trial):
    (folder / trial.id).touch()
    deadline = time.monotonic() + 120
    while len(list(folder.iterdir())) < together and time.monotonic() < deadline:
        time.sleep(0.05)
    seen = len(list(folder.iterdir()))
    if together == 1:
        time.sleep(0.5)
        (folder / trial.id).unlink()
    (folder.parent / f"sees{trial.id}").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "all"))
    return float(seen)

if __name__ == "__main__":
    small = {"object_store_memory": 100_000_000, "include_dashboard": False}
    ray.init(address="local", num_cpus=4, num_gpus=1, log_to_driver=False, **small)
    scores = []
    trials = [Trial(str(i), i, 0, {}) for i in range(4)]
    workers = RayWorkers(cpus=0.1, gpus=gpus)
    workers.run(evaluate, trials, lambda trial, score, reason: scores.append(score))
    workers.close()
    sees = [path.read_text() for path in folder.parent.glob("sees*")]
    print(json.dumps({"scores": scores, "sees": sees}))
"""


@pytest.mark.parametrize(
    ("gpus", "together", "sees"), [("0.25", 4, "0"), ("None", 1, "0"), ("0.0", 4, "")]
)
def test_parts_of_a_gpu(tmp_path: Path, start: Start, gpus: str, together: int, sees: str) -> None:
    """Four share one where each takes a quarter; who takes none sees none."""
    imported()
    (tmp_path / "run").mkdir()
    out, _ = finish(start([sys.executable, "-c", GPUS, str(tmp_path / "run"), gpus, str(together)]))
    told = json.loads(out.splitlines()[-1])
    assert told["scores"] == [float(together)] * 4
    assert told["sees"] == [sees] * 4


def test_a_candidate_that_no_node_can_hold_is_told() -> None:
    ray_workers(1)
    cluster = Cluster("", 1.0, 8.0)
    cluster.connect()
    assert "takes 1 CPUs and 8 GPUs (SEARCH.RAY.CPUS, SEARCH.RAY.GPUS), and no" in cluster.lack()
    assert "nodes with 2 CPUs and 0 GPUs" in cluster.lack()


@pytest.mark.parametrize(("cpus", "gpus"), [(-1.0, 0.0), (1.0, 1.5), (2.5, None)])
def test_parts_of_several_are_refused(cpus: float, gpus: float | None) -> None:
    with pytest.raises(SearchError, match="allowed are 0 to 1, and whole numbers above"):
        Cluster("", cpus, gpus)


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:9"])
def test_an_address_where_nothing_listens(start: Start, address: str) -> None:
    imported()
    code = (
        "from fbnetv3.search import RayWorkers, SearchError\n"
        f"try: RayWorkers(address='{address}').run(len, [], print)\n"
        "except SearchError as error: print(error)"
    )
    out = finish(start([sys.executable, "-c", code]))[0].strip()
    assert f"the Ray cluster '{address}' can't be used" in out.splitlines()[-1]
