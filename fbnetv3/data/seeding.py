"""Random seeds derived from the purpose of a draw, so that the order of draws does not matter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_MASK = (1 << 64) - 1


def mix_seed(*keys: int) -> int:
    """Returns a 63-bit seed derived from integers by splitmix64."""
    state = len(keys)
    for key in keys:
        state = (state ^ (key & _MASK)) + 0x9E3779B97F4A7C15 & _MASK
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB & _MASK
        state ^= state >> 31
    return state >> 1


def keyed_generator(*keys: int) -> torch.Generator:
    """Returns a CPU generator seeded by :func:`mix_seed` of the integers."""
    return torch.Generator().manual_seed(mix_seed(*keys))


def uniform(low: float = 0.0, high: float = 1.0) -> float:
    """Returns a float32 number drawn uniformly from [low, high) by torch's global generator."""
    return torch.empty(()).uniform_(low, high).item()


@contextmanager
def preserved_rng() -> Iterator[torch.Generator]:
    """Yields torch's global CPU generator, and restores its state when the context is left."""
    # Seeding this generator is faster than torch.manual_seed, which seeds accelerators, too.
    generator = torch.default_generator
    state = generator.get_state()
    try:
        yield generator
    finally:
        generator.set_state(state)
