"""The backbone of a network: all its stages, without the head."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from fbnetv3.arch import Arch
from fbnetv3.modeling.checkpointing import checkpointed
from fbnetv3.modeling.registry import build_layer


class FBNetBackbone(nn.Module):
    """All layers of an architecture, as one ``nn.Sequential`` per stage.

    ``stages[S][I]`` is layer I of stage S.

    Args:
        arch: Architecture of the network.
        drop_path_rate: Probability that stochastic depth drops the residual branch of the last
            layer in training. The probability grows linearly over the layers, from 0 at the first.

    Attributes:
        grad_checkpointing: Whether layers compute their activations again in the backward pass
            instead of keeping them, which takes less memory and more time.
    """

    def __init__(self, arch: Arch, drop_path_rate: float = 0.0) -> None:
        super().__init__()
        layers = arch.layers()
        stages: list[list[nn.Module]] = [[] for _ in arch.stage_channels]
        for depth, layer in enumerate(layers):
            rate = drop_path_rate * depth / max(1, len(layers) - 1)
            stages[layer.stage].append(build_layer(layer, rate))
        self.stages = nn.ModuleList(nn.Sequential(*stage) for stage in stages)
        self.stage_channels = arch.stage_channels
        self.stage_strides = arch.stage_strides
        self.grad_checkpointing = False

    def _stage(self, stage: nn.Module, x: Tensor) -> Tensor:
        if not (self.grad_checkpointing and self.training):
            return stage(x)
        for layer in stage.children():
            x = checkpointed(layer, x)
        return x

    def _outputs(self, x: Tensor) -> Iterator[Tensor]:
        for stage in self.stages:
            x = self._stage(stage, x)
            yield x

    def forward_stages(self, x: Tensor) -> list[Tensor]:
        """Returns the outputs of all stages; output i is (N, stage_channels[i], h_i, w_i)."""
        return list(self._outputs(x))

    def forward(self, x: Tensor) -> Tensor:
        """Returns the output (N, C, h, w) of the last stage for images (N, in_channels, H, W)."""
        for stage in self.stages:
            x = self._stage(stage, x)
        return x
