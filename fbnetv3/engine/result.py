"""What a training returns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, eq=False)
class TrainingResult(Mapping[str, float]):
    """The result of a training; as a mapping, it has the scores by name.

    Attributes:
        scores: Last scores, such as ``val/top1``, and ``best/...``; empty on ranks other than 0.
        weights: File of the exported weights: of their average if there is one, else the raw ones.
        folder: Folder of the run, OUTPUT_DIR.
    """

    scores: dict[str, float]
    weights: Path
    folder: Path

    def __getitem__(self, name: str) -> float:
        return self.scores[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.scores)

    def __len__(self) -> int:
        return len(self.scores)
