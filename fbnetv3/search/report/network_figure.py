"""The drawing of a network: a bar for each layer, whose height is its number of channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fbnetv3.search.report.figures import Figure
from fbnetv3.search.report.svg import Axis, Chart

_KERNELS = (1, 3, 5, 7)
"""Kernel sizes with a colour; any other kernel has the colour of the next smaller size."""


@dataclass(frozen=True)
class LayerBar:
    """A layer of a network.

    Attributes:
        stage: Number of the stage, from 0 on.
        channels: Number of output channels.
        side: Side of the output in pixels.
        kernel: Side of the largest kernel; 1 for a layer without a kernel.
        text: Description of the layer, shown as its tooltip.
    """

    stage: int
    channels: int
    side: int
    kernel: int
    text: str


def draw_network(name: str, layers: Sequence[LayerBar]) -> Figure:
    """Draws the depth, the width, the kernels and the resolution of a network.

    Args:
        name: Name of the network.
        layers: Layers from the image to the classifier; at least one.
    """
    channels = [float(layer.channels) for layer in layers]
    end = layers[-1].stage + len(layers) + 0.5
    x = Axis("layers; gaps separate stages", 0.0, end, numbers=lambda _: "")
    y = Axis("channels", min(channels) / 2, max(channels) * 1.6, log=True)
    chart = Chart(_title(name, layers), x, y, width=520, height=240)
    side = 0
    for number, layer in enumerate(layers):
        left = number + layer.stage + 0.25
        chart.bar(left, left + 0.9, layer.channels, f"k{_kernel(layer)}", layer.text)
        if layer.side != side:
            side = layer.side
            chart.text(left, layer.channels * 1.12, f"{side} px")
    used = sorted({_kernel(layer) for layer in layers})
    legend = tuple((f"k{k}", f"{k} x {k}{' or larger' if k == _KERNELS[-1] else ''}") for k in used)
    return Figure(name, chart.svg(), _title(name, layers) + ".", legend)


def _kernel(layer: LayerBar) -> int:
    return max(k for k in _KERNELS if k <= max(1, layer.kernel))


def _title(name: str, layers: Sequence[LayerBar]) -> str:
    widest = max(layer.channels for layer in layers)
    sides = f"{layers[0].side} to {layers[-1].side} pixels"
    stages = layers[-1].stage + 1
    return f"{name}: {len(layers)} layers in {stages} stages, up to {widest} channels, {sides}"
