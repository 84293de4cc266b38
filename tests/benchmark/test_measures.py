"""Time in alternating rounds, and memory in a process of its own."""

from __future__ import annotations

import pytest
import torch

from fbnetv3.benchmark import measures
from fbnetv3.benchmark.variants import Shape, torch_threads


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that measures sees; steps move it on."""
    now = [0.0]
    monkeypatch.setattr(measures.time, "perf_counter", lambda: now[0])
    return now


def test_rounds_alternate_and_turn_around(clock: list[float]) -> None:
    called: list[str] = []

    def step(name: str, seconds: float) -> None:
        called.append(name)
        clock[0] += seconds

    steps = {"a": lambda: step("a", 0.5), "b": lambda: step("b", 0.25)}
    rounds: list[int] = []
    times = measures.alternate(steps, 3, lambda: rounds.append(len(called)))
    assert times == {"a": [0.5] * 3, "b": [0.25] * 3}
    assert "".join(called) == "ab" + "ab" + "ba" + "ab"  # once each to see how long it takes
    assert rounds == [4, 6, 8]


def test_short_steps_are_repeated_within_a_round(clock: list[float]) -> None:
    calls = []

    def step() -> None:
        calls.append(1)
        clock[0] += 0.01

    times = measures.alternate({"a": step}, 2, lambda: None)
    assert times["a"] == pytest.approx([0.01, 0.01])
    assert len(calls) == 1 + 2 * 5


@pytest.mark.slow
def test_memory_grows_with_the_batch() -> None:
    pytest.importorskip("resource")
    small, large = (
        measures.peak_memory("training", "fbnetv3_a0", "ours", Shape(n, 64), 1) for n in (2, 32)
    )
    assert small >= 0
    assert large > small + 50  # MiB; some 150 in fact


def test_threads_are_set_and_restored() -> None:
    before = torch.get_num_threads()
    with torch_threads(2):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == before
