"""Statistics and number of classes of ImageNet (ILSVRC 2012)."""

from __future__ import annotations

MEAN = (0.485, 0.456, 0.406)
"""RGB mean of pixels scaled to [0, 1]."""
STD = (0.229, 0.224, 0.225)
"""RGB standard deviation of pixels scaled to [0, 1]."""
NUM_CLASSES = 1000
