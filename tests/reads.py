"""A config that records which of its keys are read."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

from fbnetv3.config import CfgNode

# Files that read keys for others: the tree itself, its checks, and what is written and reported
_BY_THE_WAY = (
    "yacs/config.py",
    "fvcore/common/config.py",
    "detectron2/config/config.py",
    "fbnetv3/config/node.py",
    "fbnetv3/config/ranges.py",
    "fbnetv3/config/effects.py",
    "fbnetv3/config/changes.py",
)


class ReadRecorder(CfgNode):
    """A node that adds the full keys of the values that are read to a set.

    Copies of the tree add to the same set.
    """

    def __getitem__(self, name: str) -> Any:
        value = super().__getitem__(name)
        reads = self.__dict__.get("_reads")
        if reads is not None and not isinstance(value, CfgNode) and _reader(sys._getframe(1)):
            reads.add(".".join((*self.__dict__["_path"], name)))
        return value


class Reads(set[str]):
    """A set that copies of a config share."""

    def __deepcopy__(self, memo: Any) -> Reads:
        return self


def recorded(cfg: CfgNode, reads: Reads, path: tuple[str, ...] = ()) -> ReadRecorder:
    """Returns a frozen copy of a config that records reads.

    Args:
        cfg: The config.
        reads: Set that full keys are added to.
        path: Keys of the group that ``cfg`` is.
    """
    node = ReadRecorder.__new__(ReadRecorder)
    for key, value in cfg.items():
        is_group = isinstance(value, CfgNode)
        dict.__setitem__(node, key, recorded(value, reads, (*path, key)) if is_group else value)
    node.__dict__.update(cfg.__dict__, _reads=reads, _path=path)
    return node


def _reader(frame: FrameType | None) -> bool:
    """Returns whether a read is none of :data:`_BY_THE_WAY`."""
    while frame is not None and frame.f_code.co_filename.endswith(_BY_THE_WAY[:4]):
        frame = frame.f_back
    return frame is not None and not frame.f_code.co_filename.endswith(_BY_THE_WAY)
