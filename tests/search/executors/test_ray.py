"""What only a cluster has: nodes that die, lack the run's folder or have no room."""

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
from fbnetv3.search.executors import ray
from fbnetv3.search.executors.ray_cluster import Cluster
from fbnetv3.search.executors.ray_node import NodeContext
from tests.processes import Start, finish
from tests.search import problem
from tests.search.executors.ray_clusters import imported, ray_workers
from tests.search.executors.running import evaluate_all, make_trials

# Two nodes with room for one candidate each; the second is killed while both are evaluating.
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
    time.sleep(0.5)
    return problem.evaluate(trial)

if __name__ == "__main__":
    node = {"num_cpus": 1, "object_store_memory": 100_000_000, "include_dashboard": False}
    soon = {"health_check_period_ms": 500, "health_check_failure_threshold": 3}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "_system_config": soon})
    second = [cluster.add_node(**node)]
    ray.init(address=cluster.address, log_to_driver=False)
    finished, reported = [], set()

    def kill_node(search, event):
        if event.kind == "finish":
            finished.append(event.trial.number)
        if event.kind == "report":
            reported.add(event.trial.number)
        if second and len(reported - set(finished)) == 2 and len(finished) >= 3:
            cluster.remove_node(second.pop(), allow_graceful=False)

    search = problem.search(executor=RayWorkers(shared=folder), batch_size=4, finalists=2)
    result = search.run(evaluate, callbacks=[kill_node])
    outcome = {"finished": finished, "summary": problem.summary(result), "killed": not second}
    (folder / "result.json").write_text(json.dumps(outcome))
    ray.shutdown()
    cluster.shutdown()
"""


@pytest.mark.slow
@pytest.mark.timeout(480)
def test_the_death_of_a_node_loses_no_trial_and_repeats_one(tmp_path: Path, start: Start) -> None:
    imported()
    script = tmp_path / "search.py"
    script.write_text(SCRIPT)
    finish(start([sys.executable, str(script), str(tmp_path)]))
    outcome = json.loads((tmp_path / "result.json").read_text())
    expected = problem.search(batch_size=4, finalists=2).run(problem.evaluate)
    undisturbed = json.loads(json.dumps(problem.summary(expected)))
    assert outcome["killed"]
    assert outcome["summary"] == undisturbed
    assert sorted(outcome["finished"]) == [row[0] for row in undisturbed]
    begun = (tmp_path / "begun").read_text().split()
    # Only the trial on the lost node was begun twice.
    assert len(begun) == len(undisturbed) + 1
    assert set(begun) == {row[1] for row in undisturbed}
    assert not list(tmp_path.glob(".ray_*"))


@pytest.mark.parametrize(
    ("context", "message"),
    [
        (
            NodeContext("/no/such", {}, None),
            "has no folder /no/such, the working directory of the search",
        ),
        (
            NodeContext("/", {}, Path("/no/run/.marker")),
            "does not see the run folder /no/run",
        ),
    ],
)
def test_a_node_without_the_folders_of_the_search_is_one_error(
    context: NodeContext, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = ray_workers(2)
    monkeypatch.setattr(NodeContext, "create", lambda shared: context)
    with pytest.raises(SearchError, match=message) as error:
        evaluate_all(workers, lambda trial: 1.0, make_trials(1))
    assert "must be at the same path on all nodes" in str(error.value)
    assert "\n" not in str(error.value)


def test_workers_have_the_package_s_environment_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = ray_workers(1, shared=tmp_path)
    monkeypatch.setenv("FBNETV3_DATA", "12.0")

    def evaluate(trial: Trial) -> float:
        return float(os.environ["FBNETV3_DATA"])

    (finished,) = evaluate_all(workers, evaluate, make_trials(1))
    workers.close()
    assert finished.score == 12.0
    assert list(tmp_path.iterdir()) == [], "the marker file stays"


def _outcomes(workers: Any, evaluate: Any, numbers: range) -> list[tuple[Any, ...]]:
    """Evaluates trials with the given numbers; returns (number, score, reason), by number."""
    trials = [Trial(str(number), number, 0, {}) for number in numbers]
    results = evaluate_all(workers, evaluate, trials)
    return sorted((item.trial.number, item.score, item.reason) for item in results)


def _is_ending(pid: int) -> bool:
    """Returns whether a killed process cannot be waited for yet by its parent."""
    folder = Path(f"/proc/{pid}")
    try:
        state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        # The first thread may be a zombie while others are still ending.
        return state not in "ZX" or len(list((folder / "task").iterdir())) > 1
    except FileNotFoundError:
        return False


def test_the_death_of_an_idle_worker_costs_no_attempt(tmp_path: Path) -> None:
    def evaluate(trial: Trial) -> float:
        with (tmp_path / "begun").open("a") as file:
            file.write(f"{trial.id}\n")
        if trial.number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return float(os.getpid())

    workers = ray_workers(1)
    pid = int(_outcomes(workers, evaluate, range(1))[0][1])
    os.kill(pid, signal.SIGKILL)
    while _is_ending(pid):
        time.sleep(0.05)
    outcomes = _outcomes(workers, evaluate, range(1, 2))
    workers.close()
    assert outcomes == [(1, None, "its worker was ended by SIGKILL; this was the second attempt")]
    assert (tmp_path / "begun").read_text().split() == ["0", "1", "1"]


@pytest.mark.slow
def test_the_death_of_many_idle_workers_costs_no_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large node that is lost between two batches takes along all of its workers."""
    monkeypatch.setattr(ray, "_MAX_FAILED_STARTS", 2)
    count = 3  # more than may fail to start in a row

    def evaluate(trial: Trial) -> float:
        (tmp_path / trial.id).touch()
        deadline = time.monotonic() + 240.0
        while len(os.listdir(tmp_path)) < count and time.monotonic() < deadline:
            time.sleep(0.1)
        return float(os.getppid())

    workers = ray_workers(count, cpus=0.1)
    actors = {int(score) for _, score, _ in _outcomes(workers, evaluate, range(count))}
    assert len(actors) == count
    for pid in actors:
        os.kill(pid, signal.SIGKILL)
    outcomes = _outcomes(workers, evaluate, range(count, 2 * count))
    workers.close()
    assert [(number, reason) for number, _, reason in outcomes] == [
        (number, None) for number in range(count, 2 * count)
    ]


# Ray believes the number of GPUs that it is given, whether or not the machine has them.
GPUS = """
import json, os, sys, time
from pathlib import Path
import ray
from fbnetv3.search import RayWorkers
from tests.search.executors.running import evaluate_all, make_trials

folder = Path(sys.argv[1])

class Evaluation:
    def __init__(self, folder, together):
        self.folder, self.together = folder, together

    def __call__(self, trial):
        (self.folder / trial.id).touch()
        deadline = time.monotonic() + 120
        while len(list(self.folder.iterdir())) < self.together and time.monotonic() < deadline:
            time.sleep(0.05)
        running = len(list(self.folder.iterdir()))
        if self.together == 1:
            time.sleep(0.5)
            (self.folder / trial.id).unlink()
        seen = os.environ.get("CUDA_VISIBLE_DEVICES", "all")
        (self.folder.parent / f"{self.folder.name}_sees{trial.id}").write_text(seen)
        return float(running)

if __name__ == "__main__":
    small = {"object_store_memory": 100_000_000, "include_dashboard": False}
    ray.init(address="local", num_cpus=4, num_gpus=1, log_to_driver=False, **small)
    outcomes = {}
    for gpus, together in json.loads(sys.argv[2]):
        run = folder / str(gpus)
        run.mkdir()
        workers = RayWorkers(cpus=0.1, gpus=gpus)
        evaluated = evaluate_all(workers, Evaluation(run, together), make_trials(2))
        workers.close()
        sees = [path.read_text() for path in folder.glob(f"{run.name}_sees*")]
        outcomes[str(gpus)] = {"scores": [item.score for item in evaluated], "sees": sees}
    print(json.dumps(outcomes))
"""


def test_workers_share_a_gpu(tmp_path: Path, start: Start) -> None:
    """Two workers share a GPU if each takes half; a worker that takes none sees none.

    By default each takes a whole one, so that they train one after the other.
    """
    imported()
    together = [(0.5, 2), (None, 1), (0.0, 2)]
    out, _ = finish(start([sys.executable, "-c", GPUS, str(tmp_path), json.dumps(together)]))
    outcomes = json.loads(out.splitlines()[-1])
    assert outcomes == {
        "0.5": {"scores": [2.0, 2.0], "sees": ["0", "0"]},
        "None": {"scores": [1.0, 1.0], "sees": ["0", "0"]},
        "0.0": {"scores": [2.0, 2.0], "sees": ["", ""]},
    }


def test_a_worker_that_no_node_can_hold_is_reported() -> None:
    ray_workers(1)
    cluster = Cluster("", 1.0, 8.0)
    cluster.connect()
    problem_text = cluster.resource_problem()
    assert "needs 1 CPUs and 8 GPUs (SEARCH.RAY.CPUS, SEARCH.RAY.GPUS), but no" in problem_text
    assert "nodes of the cluster: 2 CPUs and 0 GPUs" in problem_text


@pytest.mark.parametrize(("cpus", "gpus"), [(-1.0, 0.0), (1.0, 1.5), (2.5, None)])
def test_fractions_of_several_cpus_or_gpus_are_refused(cpus: float, gpus: float | None) -> None:
    with pytest.raises(SearchError, match="allowed: 0 to 1, or a whole number"):
        Cluster("", cpus, gpus)


def test_addresses_where_nothing_listens_are_refused(start: Start) -> None:
    imported()
    code = (
        "from fbnetv3.search import RayWorkers, SearchError\n"
        "for address in ('nonsense', '127.0.0.1:9'):\n"
        "    try: RayWorkers(address=address).start(len)\n"
        "    except SearchError as error: print(error)"
    )
    lines = finish(start([sys.executable, "-c", code]))[0].strip().splitlines()
    for address, line in zip(("nonsense", "127.0.0.1:9"), lines[-2:], strict=True):
        assert f"cannot connect to the Ray cluster '{address}'" in line
