"""RandAugment and TrivialAugment by name, in torchvision's implementation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from PIL import Image
from torchvision.transforms import v2

AUGMENTATIONS = ("randaugment", "trivialaugment")


def augmentation(
    name: str, fill: Sequence[float], ops: int = 2, magnitude: int = 9
) -> Callable[[Image.Image], Image.Image]:
    """Returns an augmentation that draws from torch's global generator.

    Args:
        name: ``randaugment`` (Cubuk et al., 2020) or ``trivialaugment`` (Müller and Hutter, 2021,
            with the wide ranges).
        fill: RGB colour of the areas that a shift or turn uncovers.
        ops: Number of operations that RandAugment applies to an image.
        magnitude: Strength of RandAugment's operations, 0 to 30.
    """
    if name == "randaugment":
        return v2.RandAugment(ops, magnitude, fill=list(fill))
    return v2.TrivialAugmentWide(fill=list(fill))
