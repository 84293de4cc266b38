"""Random erasing (Zhong et al., 2020) of batches of normalised images, on the batches' device."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_AREA = (0.02, 0.33)  # fractions of the image
_ASPECT = (0.3, 3.3)  # height / width
_ATTEMPTS = 10  # rectangles drawn for each image; the first that fits is used


def erasing_boxes(
    count: int, height: int, width: int, probability: float, generator: torch.Generator
) -> Tensor:
    """Returns a rectangle for each image, (count, 4) int64: top, left, bottom, right.

    Bottom and right are exclusive. Areas are drawn uniformly from 2% to 33% of the image and aspect
    ratios (height / width) log-uniformly from 0.3 to 3.3, as in torchvision. A rectangle that does
    not fit is redrawn; after ten attempts the image is left as it is. Images that are not erased
    get the rectangle (0, 0, 0, 0).

    Args:
        count: Number of images.
        height: Height of the images in pixels.
        width: Width of the images in pixels.
        probability: Probability with which an image is erased, if a rectangle fits.
        generator: CPU generator; the number of draws depends on ``count`` alone.
    """
    chosen = torch.rand(count, generator=generator, dtype=torch.float64) < probability
    draws = torch.rand(4, count, _ATTEMPTS, generator=generator, dtype=torch.float64)
    area = height * width * (_AREA[0] + (_AREA[1] - _AREA[0]) * draws[0])
    low, high = math.log(_ASPECT[0]), math.log(_ASPECT[1])
    aspect = torch.exp(low + (high - low) * draws[1])
    box_height, box_width = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (box_height < height) & (box_width < width)
    first = fits.double().argmax(1, keepdim=True)  # the first attempt that fits
    box_height = box_height.gather(1, first)[:, 0]
    box_width = box_width.gather(1, first)[:, 0]
    top = (draws[2].gather(1, first)[:, 0] * (height - box_height + 1)).floor()
    left = (draws[3].gather(1, first)[:, 0] * (width - box_width + 1)).floor()
    boxes = torch.stack([top, left, top + box_height, left + box_width], 1)
    return (boxes * (chosen & fits.any(1))[:, None]).long()


def erase(images: Tensor, boxes: Tensor) -> Tensor:
    """Returns images with all pixels in the rectangles set to 0, the mean of normalised pixels.

    Args:
        images: (N, 3, H, W) normalised images.
        boxes: (N, 4) rectangles, as returned by :func:`erasing_boxes`, on any device.
    """
    device = images.device
    rows = torch.arange(images.shape[-2], device=device)[None, :]
    columns = torch.arange(images.shape[-1], device=device)[None, :]
    top, left, bottom, right = (edge[:, None] for edge in boxes.to(device).unbind(1))
    in_rows = (rows >= top) & (rows < bottom)
    in_columns = (columns >= left) & (columns < right)
    inside = in_rows[:, None, :, None] & in_columns[:, None, None, :]
    return images.masked_fill(inside, 0.0)
