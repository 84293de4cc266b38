"""Initial weights of a detector: its own, or a classifier's for the bottom-up part."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fbnetv3.config import CfgNode, ConfigError
from fbnetv3.data.errors import some
from fbnetv3.detection.backbone import FBNetBottomUp, table_from_config
from fbnetv3.modeling import FBNetClassifier
from fbnetv3.zoo import LoadError, fetch, find_record, load_state_dict, read_tensors
from fbnetv3.zoo.download import ZOO_SCHEME

_COUNTER = "num_batches_tracked"
# layers whose shape follows the number of classes
_CLASS_LAYERS = ("head.cls_score", "roi_heads.box_predictor")


@dataclass(frozen=True)
class DetectorLoadSummary:
    """What a load did; every tensor of file and model is in exactly one list.

    Attributes:
        source: file or address.
        loaded: tensors of the model that were taken from it.
        fresh: tensors of the model that keep their random start.
        unused: tensors of the file that the detector has no use for.
    """

    source: str
    loaded: tuple[str, ...]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"loaded {len(self.loaded)} tensors from {self.source}"]
        if self.fresh:
            parts.append(f"{len(self.fresh)} begin anew ({_rooms(self.fresh)})")
        if self.unused:
            parts.append(f"{len(self.unused)} of the file unused ({_rooms(self.unused)})")
        return "; ".join(parts)


def _rooms(names: tuple[str, ...]) -> str:
    """Names the modules, two levels deep, not each tensor."""
    return some(list(dict.fromkeys(".".join(name.split(".")[:2]) for name in names)), 6)


def load_detector_weights(model: nn.Module, uri: str, cfg: CfgNode) -> DetectorLoadSummary:
    """Loads MODEL.WEIGHTS into a detector.

    Args:
        model: to load into.
        uri: ``zoo://NAME[.TAG]`` or a file: a detector's weights (where the classes differ, the
            layers that give them begin anew), or those of the classifier MODEL.ARCH in any known
            layout, for the bottom-up part.
        cfg: the config that the detector was built of.

    Raises:
        FBNetError: the weights can't be had or read, or do not fit; the model is unchanged.
    """
    path = uri
    if uri.startswith(ZOO_SCHEME):
        path = str(fetch(find_record(uri.removeprefix(ZOO_SCHEME))))
    tensors, _ = read_tensors(path)
    if any(key.startswith("backbone.") and "bottom_up." in key for key in tensors):
        return _load_detector(model, tensors, uri)
    bottom_up = getattr(model.backbone, "bottom_up", model.backbone)
    if not isinstance(bottom_up, FBNetBottomUp):
        raise ConfigError(
            f"MODEL.WEIGHTS {uri} is no detector's; a classifier's weights are loaded into FBNets"
        )
    return _load_bottom_up(model, bottom_up, tensors, uri, cfg)


def _load_detector(model: nn.Module, tensors: dict[str, Tensor], uri: str) -> DetectorLoadSummary:
    own = model.state_dict()
    taken = {k: v for k, v in tensors.items() if k in own and own[k].shape == v.shape}
    fresh = [key for key in own if key not in taken]
    unused = [key for key in tensors if key not in taken]
    wrong = [k for k in (*fresh, *unused) if not k.startswith(_CLASS_LAYERS)]
    wrong = [key for key in wrong if not key.endswith(_COUNTER)]  # frozen norms count nothing
    if wrong:
        raise LoadError(
            f"{uri}: the weights are of another detector: {len(wrong)} tensors are missing, "
            f"unknown or of another shape ({some(wrong, 3)}); use the config they were trained by"
        )
    model.load_state_dict(taken, strict=False)
    return DetectorLoadSummary(uri, tuple(taken), tuple(fresh), tuple(unused))


def _load_bottom_up(
    model: nn.Module,
    bottom_up: FBNetBottomUp,
    tensors: dict[str, Tensor],
    uri: str,
    cfg: CfgNode,
) -> DetectorLoadSummary:
    """Goes by the whole classifier, whose loading knows every layout and misses nothing."""
    with torch.random.fork_rng(devices=[]):  # the classifier's random start is thrown away
        classifier = FBNetClassifier(table_from_config(cfg))
    load_state_dict(classifier, tensors, allow_new_head=True, source=uri)
    given = classifier.backbone.state_dict()
    own = bottom_up.state_dict()
    taken = {key: given[key] for key in own}
    bottom_up.load_state_dict(taken)
    prefix = next(n for n, m in model.named_modules() if m is bottom_up) + "."
    loaded = tuple(prefix + key for key in taken)
    fresh = tuple(key for key in model.state_dict() if key not in set(loaded))
    rest = tuple(f"backbone.{k}" for k in given if k not in taken and not k.endswith(_COUNTER))
    head = tuple(f"head.{key}" for key in classifier.head.state_dict())
    return DetectorLoadSummary(uri, loaded, fresh, (*rest, *head))
