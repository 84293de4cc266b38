"""Workers, GPUs and cores of a search on one machine, with simulated GPUs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from fbnetv3.search import LocalWorkers, RayWorkers, SearchError

pytest.importorskip("detectron2")

from fbnetv3.config import ConfigError
from fbnetv3.search.fbnet.config import SearchSetup, executor_from_config
from fbnetv3.search.fbnet.keys import get_search_cfg
from fbnetv3.search.fbnet.placement import (
    placement_from_config,
    placement_lines,
    usable_cores,
    visible_gpus,
)
from fbnetv3.search.fbnet.trainings import candidate_training

_BOTH = {"THREADS": "auto", "LOADER_WORKERS": "auto"}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets the numbers of GPUs and cores, and CUDA_VISIBLE_DEVICES, of a simulated machine."""

    def simulate(gpus: int, cores: int = 8, visible: str | None = None) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.cuda, "init", lambda: pytest.fail("a CUDA context is created"))
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
        if visible is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        else:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    return simulate


def _cfg(*opts: Any) -> Any:
    cfg = get_search_cfg()
    cfg.merge_from_list(list(opts))
    return cfg


@pytest.mark.parametrize(
    ("gpus", "visible", "device", "expected"),
    [
        (0, None, "auto", ()),
        (3, None, "auto", ("0", "1", "2")),
        (3, None, "cuda", ("0", "1", "2")),
        (3, None, "cpu", ()),
        (3, None, "cuda:1", ()),  # all candidates train there
        (2, "5, 7", "auto", ("5", "7")),
        (2, "GPU-8932f937,GPU-aaaa", "auto", ("GPU-8932f937", "GPU-aaaa")),
        (1, "MIG-0b8d4a1e", "auto", ("MIG-0b8d4a1e",)),
        (1, "3,-1,2", "auto", ("3",)),  # CUDA's list ends at the first name of no device
        (0, "", "auto", ()),
    ],
)
def test_gpus_are_those_that_this_process_may_use(
    machine: Any, gpus: int, visible: str | None, device: str, expected: tuple[str, ...]
) -> None:
    machine(gpus, visible=visible)
    assert visible_gpus(device) == expected


def test_cores_are_counted_where_the_system_has_no_affinity(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert usable_cores() == 6


@pytest.mark.parametrize(
    ("gpus", "cores", "opts", "workers", "threads", "loaders"),
    [
        (0, 8, {}, 0, 1, None),
        (8, 96, {"WORKERS": "auto"}, 8, 1, None),
        (8, 96, {"WORKERS": "auto", "LOADER_WORKERS": "auto"}, 8, 1, 11),
        (2, 96, {"WORKERS": "auto", "LOADER_WORKERS": "auto"}, 2, 1, 16),
        (4, 8, {"WORKERS": "auto", "WORKERS_PER_GPU": 3}, 12, 1, None),
        (4, 8, {"WORKERS": 6, "WORKERS_PER_GPU": 3}, 6, 1, None),
        (0, 8, {"WORKERS": "auto"}, 8, 1, None),
        (0, 8, {"WORKERS": "auto", "THREADS": 3}, 2, 3, None),
        (0, 2, {"WORKERS": "auto", "THREADS": 3}, 1, 3, None),
        (0, 8, {"WORKERS": 2, "THREADS": "auto", "LOADER_WORKERS": 1}, 2, 3, 1),
        (0, 8, {"WORKERS": 2, "THREADS": "auto", "LOADER_WORKERS": "auto"}, 2, 4, 0),
        (2, 8, {"WORKERS": 2, "THREADS": "auto", "LOADER_WORKERS": "auto"}, 2, 1, 3),
        (0, 8, {"WORKERS": 2, "THREADS": "auto"}, 2, 2, None),  # less 2 of DATALOADER.NUM_WORKERS
        (0, 1, {"WORKERS": 4, "THREADS": "auto", "LOADER_WORKERS": "auto"}, 4, 1, 0),
        (0, 8, {"EXECUTOR": "ray", "LOADER_WORKERS": "auto"}, 0, 1, None),
        (0, 8, {"EXECUTOR": "ray", "LOADER_WORKERS": "auto", "RAY.CPUS": 6.0}, 0, 1, 5),
        (0, 8, {"EXECUTOR": "ray", "RAY.CPUS": 6.0, **_BOTH}, 0, 6, 0),
        (0, 8, {"EXECUTOR": "ray", "RAY.CPUS": 6.0, "RAY.GPUS": 1.0, **_BOTH}, 0, 1, 5),
    ],
)
def test_cores_are_divided_among_the_workers(
    machine: Any,
    gpus: int,
    cores: int,
    opts: dict[str, Any],
    workers: int,
    threads: int,
    loaders: int | None,
) -> None:
    machine(gpus, cores)
    cfg = _cfg(*(item for key, value in opts.items() for item in (f"SEARCH.{key}", value)))
    placement = placement_from_config(cfg)
    assert (placement.workers, placement.threads, placement.loaders) == (workers, threads, loaders)
    assert len(placement.devices) == (gpus if workers else 0)


@pytest.mark.parametrize(
    ("opts", "expected"),
    [
        ({"WORKERS": "auto"}, (1, 1, None)),
        ({"WORKERS": "auto", "WORKERS_PER_GPU": 3}, (3, 1, None)),
        ({"WORKERS": "auto", "WORKERS_PER_GPU": 2, **_BOTH}, (2, 1, 3)),
        ({"WORKERS": 2, **_BOTH}, (2, 1, 3)),
        ({"WORKERS": 0, **_BOTH}, (0, 1, 7)),
    ],
)
@pytest.mark.parametrize("gpus", [2, 1])
def test_candidates_share_the_one_gpu_that_a_device_names(
    machine: Any, gpus: int, opts: dict[str, Any], expected: tuple[int, int, int | None]
) -> None:
    machine(gpus, 8)
    items = (item for key, value in opts.items() for item in (f"SEARCH.{key}", value))
    placement = placement_from_config(_cfg("MODEL.DEVICE", f"cuda:{gpus - 1}", *items))
    assert (placement.workers, placement.threads, placement.loaders) == expected
    assert placement.devices == ()  # all of them see all GPUs, and choose the same one


def test_the_executor_gives_its_workers_the_gpus_in_turn(
    machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(2, visible="GPU-a,GPU-b")
    made: list[Any] = []
    monkeypatch.setattr(
        LocalWorkers, "__init__", lambda self, *args, **kwargs: made.append((args, kwargs))
    )
    executor_from_config(_cfg("SEARCH.WORKERS", "auto", "SEARCH.WORKERS_PER_GPU", 2))
    assert made == [((4, 1, None, ("GPU-a", "GPU-b")), {})]


def test_candidates_load_with_their_share_of_the_cores(machine: Any, tmp_path: Path) -> None:
    machine(2, 12)
    cfg = get_search_cfg()
    cfg.merge_from_file("model_zoo/search/digits.yaml")
    cfg.merge_from_list(["SEARCH.WORKERS", "auto", "SEARCH.LOADER_WORKERS", "auto"])
    placed = SearchSetup(placement_from_config(cfg).applied_to(cfg))
    (config,) = placed.space.space.configs(placed.space.space.sizes[None] * 0)
    assert candidate_training(placed, config, tmp_path).DATALOADER.NUM_WORKERS == 5
    assert candidate_training(SearchSetup(cfg), config, tmp_path).DATALOADER.NUM_WORKERS == 0


@pytest.mark.parametrize(
    ("gpus", "opts", "expected"),
    [
        (
            2,
            ["SEARCH.WORKERS", 3],
            [
                "3 workers, each with 1 thread and 2 data-loader workers; GPU 0: workers 0 and 2;",
                "the workers have 9 threads and data-loader workers on 8 cores, which slows",
            ],
        ),
        (
            4,
            ["SEARCH.WORKERS", 2, "SEARCH.WORKERS_PER_GPU", 2],
            [
                "2 workers, each with 1 thread",
                "SEARCH.WORKERS_PER_GPU has no effect, since SEARCH.WORKERS is a number",
                "2 of 4 GPUs stay idle; SEARCH.WORKERS auto uses all of them",
            ],
        ),
        (4, [], ["candidates train one after the other in this process, on one of 4 GPUs; SEARCH"]),
        (1, [], []),
        (0, [], []),
        (0, ["SEARCH.EXECUTOR", "ray"], ["each candidate on the cluster has 1 thread and 2 data"]),
    ],
)
def test_the_plan_says_who_runs_where(
    machine: Any, gpus: int, opts: list[Any], expected: list[str]
) -> None:
    machine(gpus)
    cfg = _cfg(*opts)
    lines = placement_lines(cfg, placement_from_config(cfg))
    assert len(lines) == len(expected)
    assert all(line.startswith(start) for line, start in zip(lines, expected, strict=True))
    assert gpus != 2 or lines[0].endswith("; GPU 1: worker 1")


def test_numbers_and_the_word_auto_replace_each_other() -> None:
    cfg = _cfg("SEARCH.WORKERS", "auto", "SEARCH.THREADS", "2")
    assert (cfg.SEARCH.WORKERS, cfg.SEARCH.THREADS) == ("auto", 2)
    again = get_search_cfg()
    again.merge_from_other_cfg(cfg)
    again.merge_from_list(["SEARCH.WORKERS", "3"])
    assert again.SEARCH.WORKERS == 3
    assert cfg.clone().SEARCH.WORKERS == "auto"


@pytest.mark.parametrize("value", ["many", "1.5", 2.0, True, "['auto']", ""])
def test_other_values_than_numbers_and_auto_are_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match="WORKERS takes an integer or auto, not"):
        _cfg("SEARCH.WORKERS", value)


def test_other_keys_do_not_take_auto() -> None:
    with pytest.raises(ConfigError, match="BATCH_SIZE takes an integer"):
        _cfg("SEARCH.BATCH_SIZE", "auto")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("WORKERS", -1, "WORKERS=-1 is out of range; allowed: 0 or more, or auto"),
        ("THREADS", 0, "THREADS=0 is out of range; allowed: 1 or more, or auto"),
        ("LOADER_WORKERS", -2, "LOADER_WORKERS=-2 is out of range; allowed: -1 or more, or auto"),
        ("WORKERS_PER_GPU", 0, "WORKERS_PER_GPU=0 is out of range; allowed: 1 or more"),
        ("STOP_AFTER_FAILURES", -1, "STOP_AFTER_FAILURES=-1 is out of range; allowed: 0 or more"),
    ],
)
def test_numbers_out_of_range_are_refused(key: str, value: int, message: str) -> None:
    with pytest.raises(SearchError, match=message):
        executor_from_config(_cfg(f"SEARCH.{key}", value))


@pytest.mark.parametrize(
    ("opts", "cpus"),
    [
        ([], 3),  # one thread and two data-loader workers
        (["SEARCH.LOADER_WORKERS", 5, "SEARCH.THREADS", 2], 7),
        (["SEARCH.LOADER_WORKERS", 20], 8),  # a private cluster has the cores of this machine
        (["SEARCH.LOADER_WORKERS", 20, "SEARCH.RAY.ADDRESS", "10.0.0.1:6379"], 21),
        (["SEARCH.LOADER_WORKERS", 20, "SEARCH.RAY.CPUS", 2.0], 2),
    ],
)
def test_a_candidate_on_ray_reserves_its_threads_and_data_loader_workers(
    machine: Any, monkeypatch: pytest.MonkeyPatch, opts: list[Any], cpus: float
) -> None:
    machine(0, 8)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    made: list[dict[str, Any]] = []
    monkeypatch.setattr(RayWorkers, "__init__", lambda self, *args, **kwargs: made.append(kwargs))
    executor_from_config(_cfg("SEARCH.EXECUTOR", "ray", *opts))
    assert made[0]["cpus"] == cpus
