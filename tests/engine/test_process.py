"""The device of each process, with a simulated machine of several GPUs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from fbnetv3.arch import get_arch
from fbnetv3.config import CfgNode, ConfigError
from fbnetv3.engine import distributed, process
from fbnetv3.engine.launch import LaunchError, gpu_of_rank
from fbnetv3.engine.process import Process, runtime_context
from fbnetv3.engine.rng import capture_rng, restore_rng
from fbnetv3.modeling import FBNetClassifier

Make = Callable[..., CfgNode]
UseGpus = Callable[..., list[torch.device]]


@pytest.fixture
def use_gpus(monkeypatch: pytest.MonkeyPatch) -> UseGpus:
    """Simulates a machine: ``use_gpus(count, rank)`` returns the devices made current so far."""

    def simulate(count: int, rank: int = 0, world_size: int = 1) -> list[torch.device]:
        current = [torch.device("cuda", rank)] if world_size > 1 else [torch.device("cuda", 0)]
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: current[-1].index)
        monkeypatch.setattr(torch.cuda, "set_device", current.append)
        monkeypatch.setattr(process, "this_process", lambda: Process(rank, world_size))
        return current

    return simulate


@pytest.mark.parametrize("name", ["auto", "cuda"])
@pytest.mark.parametrize("rank", range(8))
def test_each_rank_has_a_gpu_of_its_own(
    tiny: Make, use_gpus: UseGpus, name: str, rank: int
) -> None:
    current = use_gpus(8, rank, world_size=8)
    assert runtime_context(tiny(MODEL__DEVICE=name)).device == torch.device("cuda", rank)
    assert current[-1] == torch.device("cuda", rank)


def test_a_single_process_makes_its_gpu_the_current_one(tiny: Make, use_gpus: UseGpus) -> None:
    current = use_gpus(4)
    assert runtime_context(tiny(MODEL__DEVICE="cuda:2")).device == torch.device("cuda", 2)
    assert current[-1] == torch.device("cuda", 2)


def test_one_gpu_for_several_processes_is_refused(tiny: Make, use_gpus: UseGpus) -> None:
    use_gpus(8, 3, world_size=8)
    with pytest.raises(ConfigError, match=r"MODEL\.DEVICE is cuda:0, but 8 processes.*set it to"):
        runtime_context(tiny(MODEL__DEVICE="cuda:0"))


def test_the_cpu_needs_no_cuda(tiny: Make, use_gpus: UseGpus) -> None:
    current = use_gpus(0)
    assert runtime_context(tiny(MODEL__DEVICE="auto")).device == torch.device("cpu")
    assert len(current) == 1


@pytest.mark.parametrize(
    ("gpus", "local_rank", "index"), [(8, 0, 0), (8, 7, 7), (1, 0, 0), (1, 3, 0)]
)
def test_gpu_of_rank(use_gpus: UseGpus, gpus: int, local_rank: int, index: int) -> None:
    use_gpus(gpus)
    assert gpu_of_rank(local_rank) == torch.device("cuda", index)


@pytest.mark.parametrize("gpus", [0, 2])
def test_a_rank_without_a_gpu(use_gpus: UseGpus, gpus: int) -> None:
    use_gpus(gpus)
    with pytest.raises(
        LaunchError, match=rf"local rank 2 has no GPU, since this machine has {gpus}"
    ):
        gpu_of_rank(2)


@pytest.mark.parametrize("rank", range(8))
def test_ddp_gets_the_gpu_of_the_process(
    monkeypatch: pytest.MonkeyPatch, tiny: Make, use_gpus: UseGpus, rank: int
) -> None:
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(
        distributed, "DistributedDataParallel", lambda model, **kwargs: calls.append(kwargs)
    )
    use_gpus(8, rank, world_size=8)
    distributed.parallel(nn.Linear(1, 1), runtime_context(tiny(MODEL__DEVICE="cuda")).device)
    assert calls == [{"device_ids": [torch.device("cuda", rank)], "broadcast_buffers": False}]


def test_ddp_on_cpus_gets_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(
        distributed, "DistributedDataParallel", lambda model, **kwargs: calls.append(kwargs)
    )
    distributed.parallel(nn.Linear(1, 1), torch.device("cpu"))
    assert calls == [{"device_ids": None, "broadcast_buffers": False}]


def test_a_network_computes_on_the_second_gpu() -> None:
    """Fake tensors have a device without memory; an op that mixes devices would raise an error."""
    device = torch.device("cuda", 1)
    with FakeTensorMode(), device:
        model = FBNetClassifier(get_arch("fbnetv3_a0")).eval()
        logits = model(torch.empty(2, 3, 64, 64, device=device))
    assert logits.device == device
    assert logits.shape == (2, 1000)


def test_a_process_reads_and_writes_the_random_state_of_its_own_gpu(
    monkeypatch: pytest.MonkeyPatch, use_gpus: UseGpus
) -> None:
    use_gpus(8, 5, world_size=8)
    states = [torch.tensor([1, 2], dtype=torch.uint8)]

    def forbidden(*_: Any) -> None:
        raise AssertionError("creates a context on every GPU")

    monkeypatch.setattr(torch.cuda, "get_rng_state_all", forbidden)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda: states[-1])
    monkeypatch.setattr(torch.cuda, "set_rng_state", states.append)
    saved = capture_rng()
    restore_rng(saved)
    assert len(saved["cuda"]) == 1
    assert len(states) == 2
    assert torch.equal(states[1], states[0])
