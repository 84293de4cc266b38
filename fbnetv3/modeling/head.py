"""The head of a classifier: global pooling, dropout and a linear layer."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from fbnetv3.arch import ArchError


def _avg(x: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(x, 1).flatten(1)


def _max(x: Tensor) -> Tensor:
    return F.adaptive_max_pool2d(x, 1).flatten(1)


def _avgmax(x: Tensor) -> Tensor:
    return 0.5 * (_avg(x) + _max(x))


def _none(x: Tensor) -> Tensor:
    return x


POOLS = {"avg": _avg, "max": _max, "avgmax": _avgmax, "": _none}
"""Global pools by timm's names: (N, C, h, w) to (N, C); "" does not pool."""


class ClassifierHead(nn.Module):
    """Global pool, dropout and a linear layer: (N, C, h, w) to logits (N, classes).

    Args:
        c_in: Channels C of the last map.
        num_classes: Number of logits; 0: the head returns the pooled features, (N, C), or the map
            (N, C, h, w) if the pool is "".
        drop_rate: Dropout rate before the linear layer, in [0, 1).
        global_pool: Global pool, a key of ``POOLS``; "" needs ``num_classes`` 0.

    Raises:
        ArchError: The pool is unknown, or "" although ``num_classes`` is not 0.
    """

    def __init__(
        self, c_in: int, num_classes: int, drop_rate: float = 0.0, global_pool: str = "avg"
    ) -> None:
        super().__init__()
        self.c_in = c_in
        self.dropout = nn.Dropout(drop_rate)
        self.fc: nn.Module = nn.Linear(c_in, num_classes) if num_classes else nn.Identity()
        self.set_pool(global_pool)

    def set_pool(self, global_pool: str) -> None:
        """Chooses the global pool, a key of ``POOLS``.

        Raises:
            ArchError: The pool is unknown, or "" although the head has a linear layer.
        """
        has_classifier = isinstance(self.fc, nn.Linear)
        allowed = [name for name in POOLS if name or not has_classifier]
        if global_pool not in allowed:
            names = ", ".join(repr(name) for name in allowed)
            extra = "; '' needs num_classes=0" if has_classifier else ""
            raise ArchError(
                "not allowed", key="global_pool", value=global_pool, allowed=f"{names}{extra}"
            )
        self.global_pool = global_pool
        self._pool = POOLS[global_pool]

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Returns the logits (N, classes), or the input of the linear layer if ``pre_logits``."""
        x = self.dropout(self._pool(x))
        return x if pre_logits else self.fc(x)
