"""The parts of detectron2's training loop, imported without the warnings of its dependencies.

Files of this package import them from here, so that the warnings are hidden whichever file is
imported first.
"""

from __future__ import annotations

from fbnetv3.requires import quiet_detectron2

with quiet_detectron2():
    from detectron2.engine import HookBase, hooks
    from detectron2.engine.train_loop import TrainerBase
    from detectron2.layers import NaiveSyncBatchNorm

__all__ = ["HookBase", "NaiveSyncBatchNorm", "TrainerBase", "hooks"]
