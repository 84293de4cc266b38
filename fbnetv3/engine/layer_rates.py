"""Factors of the learning rate for each parameter: layer-wise decay, and the head's factor.

With layer-wise decay (Clark et al., 2020; BEiT), the last layer has the factor 1, and each layer
before it has ``layer_decay`` times the factor of the next layer. The factors of the head are then
multiplied by ``head_lr_factor``. The head of a classifier is the layer that computes the logits.
The head of a detector is everything outside of ``backbone.``, which contains the feature pyramid.

Layers are numbered as follows. A block is a part of the network whose name has a number, such as
``layer1.0``. The blocks with weight matrices (tensors of two or more dimensions) are the layers 1,
2, ... in the order of the parameters; a block without one belongs to the layer before it. A stem
whose name has a number is a block: FBNet's ``backbone.stages.0.0`` is layer 1. Parameters that come
before the last block and have no number in their names are layer 0, such as ``conv1`` of a ResNet
and the position embedding of a vision transformer. Parameters between the last block and the
classifier are one layer if one of them is a weight matrix. If none is, as in the last norm of a
vision transformer, they belong to the last block's layer. The last layer is the classifier or, in a
detector, the feature pyramid with the heads.
"""

from __future__ import annotations

import re

from torch import nn

from fbnetv3.recipe import Recipe
from fbnetv3.weights.converters import heads_of

# The beginning of a parameter's name that identifies its block, such as backbone.stages.1.0,
# layer1.0, blocks.3, encoder.layers.encoder_layer_0 or, where stages have blocks, stages.0.blocks.2
_BLOCK = re.compile(r"((?:.*?[._])?\d+(?:\.\d+)*(?:\.blocks\.\d+)?)\.")
_DETECTOR_TRUNK = "backbone.bottom_up."  # names of the bottom-up part begin with this


def lr_factors(model: nn.Module, recipe: Recipe) -> dict[str, float]:
    """Returns the factor of the learning rate of each parameter, by the parameter's name.

    Args:
        model: Classifier or detector.
        recipe: Recipe with ``layer_decay`` and ``head_lr_factor``.
    """
    layers = layer_numbers(model)
    last = max(layers.values(), default=0)
    heads = tuple(f"{name}." for name in heads_of(model))
    is_detector = any(name.startswith(_DETECTOR_TRUNK) for name in layers)
    factors = {}
    for name, layer in layers.items():
        is_head = not name.startswith("backbone.") if is_detector else name.startswith(heads)
        head = recipe.head_lr_factor if is_head else 1.0
        factors[name] = head * recipe.layer_decay ** (last - layer)
    return factors


def layer_numbers(model: nn.Module) -> dict[str, int]:
    """Returns the number of the layer of each parameter, which rises from the input to the output.

    The docstring of this module says which parameters form a layer.

    Args:
        model: Classifier, or detector whose backbone has a network at ``backbone.bottom_up``.

    Returns:
        The number of the layer, from 0 on, by the parameter's name.
    """
    parameters = dict(model.named_parameters())
    is_detector = any(name.startswith(_DETECTOR_TRUNK) for name in parameters)
    trunk = [name for name in parameters if not is_detector or name.startswith(_DETECTOR_TRUNK)]
    heads = tuple(f"{name}." for name in heads_of(model))
    blocks = {
        name: match[1]
        for name in trunk
        if (match := _BLOCK.match(name)) and (is_detector or not name.startswith(heads))
    }
    with_matrices = {block for name, block in blocks.items() if parameters[name].ndim > 1}
    numbers, number, current = dict[str, int](), 0, ""
    for name in trunk:
        block = blocks.get(name)
        if block in with_matrices and block != current:
            number, current = number + 1, str(block)
        numbers[name] = number
    unnumbered = [name for name in trunk if name not in blocks]
    after = _after_last_block(trunk, blocks)
    before_head = {name for name in after if not name.startswith(heads)}
    extra_layer = int(any(parameters[name].ndim > 1 for name in before_head))
    for name in parameters:
        if name in before_head:
            numbers[name] = number + extra_layer
        elif name in after or name not in numbers:
            numbers[name] = number + extra_layer + 1
        elif name in unnumbered:
            numbers[name] = 0
    return {name: numbers[name] for name in parameters}


def _after_last_block(trunk: list[str], blocks: dict[str, str]) -> set[str]:
    """Returns the parameters that follow the last numbered block."""
    last = max((i for i, name in enumerate(trunk) if name in blocks), default=-1)
    return set(trunk[last + 1 :])
