"""Initial weights of a detector: its own, or a classifier's for the bottom-up part."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from fbnetv3.config import CfgNode
from fbnetv3.data.errors import some
from fbnetv3.detection.backbone import FBNetBottomUp, table_from_config
from fbnetv3.detection.resnet_weights import read_pickled_arrays, resnet_names
from fbnetv3.modeling import FBNetClassifier
from fbnetv3.weights.converters import load_state_dict
from fbnetv3.weights.download import ZOO_SCHEME, fetch
from fbnetv3.weights.errors import DownloadError, LoadError
from fbnetv3.weights.files import read_tensors
from fbnetv3.weights.records import find_record

_DETECTRON2_SCHEME = "detectron2://"
_COUNTER = "num_batches_tracked"
# where statistics were folded into scale and shift, 0 and 1 stand for them
_CONSTANTS = (_COUNTER, "norm.running_mean", "norm.running_var")
# layers whose shape follows the number of classes
_CLASS_LAYERS = ("head.cls_score", "roi_heads.box_predictor")


@dataclass(frozen=True)
class DetectorLoadSummary:
    """What a load did; every tensor of file and model is in exactly one list.

    Attributes:
        source: File or address.
        loaded: Tensors of the model that were taken from it.
        fresh: Tensors of the model that keep their random start.
        unused: Tensors of the file that the detector has no use for.
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
        model: To load into.
        uri: ``zoo://NAME[.TAG]``, ``detectron2://...`` or a file: a detector's weights (where the
            classes differ, the layers that give them begin anew), or for the bottom-up part those
            of the classifier MODEL.ARCH in any known layout, or of a ResNet.
        cfg: The config that the detector was built of.

    Raises:
        FBNetError: The weights can't be had or read, or do not fit; the model is unchanged.
    """
    tensors = _tensors(uri)
    if any(key.startswith("backbone.") and "bottom_up." in key for key in tensors):
        return _load_detector(model, tensors, uri)
    bottom_up = getattr(model.backbone, "bottom_up", model.backbone)
    prefix = next(name for name, module in model.named_modules() if module is bottom_up) + "."
    if isinstance(bottom_up, FBNetBottomUp):
        given = _fbnet_tensors(tensors, uri, cfg)
    else:
        given = resnet_names(tensors)
    return _load_bottom_up(model, prefix, given, uri)


def _tensors(uri: str) -> dict[str, Tensor]:
    if uri.startswith(ZOO_SCHEME):
        return read_tensors(fetch(find_record(uri.removeprefix(ZOO_SCHEME))))[0]
    path = Path(uri)
    if "://" in uri:
        _refuse_address(uri)
        path = _downloaded(uri)
    return read_pickled_arrays(path) if path.suffix == ".pkl" else read_tensors(path)[0]


def _refuse_address(uri: str) -> None:
    """A config, perhaps of others, may name files of the zoo and of detectron2, and no others.

    detectron2 would keep those under the path that the address states, ``..`` included.
    """
    if not uri.startswith(_DETECTRON2_SCHEME) or ".." in uri.split("/"):
        raise DownloadError(
            f"MODEL.WEIGHTS {uri} is not fetched; allowed: {ZOO_SCHEME}NAME, "
            f"{_DETECTRON2_SCHEME}PATH without '..'; download it and give the file"
        )


def _downloaded(uri: str) -> Path:
    """Fetches what detectron2 keeps, as ``detectron2://ImageNetPretrained/MSRA/R-50.pkl``."""
    from detectron2.utils.file_io import PathManager

    try:
        return Path(PathManager.get_local_path(uri))
    except Exception as error:  # each handler of addresses raises its own
        reason = " ".join(str(error).split())[:120]
        raise DownloadError(
            f"cannot get {uri}: {reason}; download it elsewhere and give the file as MODEL.WEIGHTS"
        ) from error


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


def _fbnet_tensors(tensors: dict[str, Tensor], uri: str, cfg: CfgNode) -> dict[str, Tensor]:
    """Goes by the whole classifier, whose loading knows every layout and misses nothing."""
    with torch.random.fork_rng(devices=[]):  # the classifier's random start is thrown away
        classifier = FBNetClassifier(table_from_config(cfg))
    load_state_dict(classifier, tensors, allow_new_head=True, source=uri)
    state = classifier.state_dict()
    return {key.removeprefix("backbone."): value for key, value in state.items()}


def _load_bottom_up(
    model: nn.Module, prefix: str, given: dict[str, Tensor], uri: str
) -> DetectorLoadSummary:
    own = {k[len(prefix) :]: v for k, v in model.state_dict().items() if k.startswith(prefix)}
    taken = {k: v for k, v in given.items() if k in own and own[k].shape == v.shape}
    wrong = [k for k in own if k not in taken and not k.endswith(_CONSTANTS)]
    if wrong:
        raise LoadError(
            f"{uri}: the weights do not fit the backbone: {len(wrong)} of its tensors are missing "
            f"or of another shape ({some(wrong, 3)}); use those of MODEL.ARCH or RESNETS.DEPTH"
        )
    model.load_state_dict({prefix + key: value for key, value in taken.items()}, strict=False)
    loaded = tuple(prefix + key for key in taken)
    fresh = tuple(key for key in model.state_dict() if key not in set(loaded))
    return DetectorLoadSummary(uri, loaded, fresh, tuple(k for k in given if k not in taken))
