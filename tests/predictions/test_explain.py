"""Class-activation pictures: the layer, the place, and what is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fbnetv3.modeling import build_model
from fbnetv3.predictions.errors import PredictError
from fbnetv3.predictions.explain import Explainer, last_feature_map
from tests.fixtures.colours import colour_classifier


class Tokens(nn.Module):
    """Patches as tokens (N, tokens, channels), as transformers have them."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm, self.head = nn.Conv2d(3, 8, 2, 2), nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.patches(x).flatten(2).mT).mean(1))


def test_the_layer_of_a_convolutional_network() -> None:
    assert last_feature_map(colour_classifier()) == "conv"
    network = build_model("fbnetv3_a0", num_classes=3).eval()
    layer = last_feature_map(dataclasses.replace(colour_classifier(), model=network))
    shapes: list[tuple[int, ...]] = []
    network.get_submodule(layer).register_forward_hook(lambda *x: shapes.append(tuple(x[2].shape)))
    with torch.no_grad():
        network(torch.zeros(1, 3, 16, 16))
    assert shapes[0][2:] == (4, 4)


def test_tokens_have_no_place() -> None:
    with pytest.raises(PredictError, match="no feature map of a convolution"):
        last_feature_map(dataclasses.replace(colour_classifier(), model=Tokens().eval()))


def test_the_map_is_where_the_class_is() -> None:
    pytest.importorskip("pytorch_grad_cam", reason="pip install 'fbnetv3[explain]'")
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:6, :6, 0] = 255  # red in the upper left corner
    pixels[10:, 10:, 2] = 255  # blue in the lower right one
    explainer = Explainer(colour_classifier())
    red, blue = explainer.maps(pixels, ["red", "blue"])
    for values, inside in ((red, np.s_[:6, :6]), (blue, np.s_[10:, 10:])):
        assert values.shape == (16, 16)
        assert values[inside].min() > 0.9
        outside = values.copy()
        outside[inside] = 0
        assert outside.max() < 0.1
    picture = explainer.picture(pixels, [("red", 0.6)])
    assert picture.size == (2 * (256 + 6) + 6, 256 + 24 + 6)
