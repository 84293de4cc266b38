"""Loading weights into a detector: those of a detector, or of a classifier as its backbone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from detectron2.utils.file_io import PathManager
from torch import Tensor, nn

from fbnetv3.config import CfgNode
from fbnetv3.data.errors import some
from fbnetv3.detection.backbone import FBNetBottomUp, table_from_config
from fbnetv3.detection.class_layers import CLASS_LAYERS, reorder_detector
from fbnetv3.detection.resnet_weights import read_pickled_arrays, resnet_names
from fbnetv3.detection.weight_inputs import (
    classifier_input,
    detector_input,
    other_input,
    resnet_input,
)
from fbnetv3.modeling import FBNetClassifier
from fbnetv3.weights.converters import load_state_dict
from fbnetv3.weights.download import ZOO_SCHEME
from fbnetv3.weights.errors import DownloadError, LoadError
from fbnetv3.weights.hub import HUB_SCHEME
from fbnetv3.weights.load import Weights, compare_classes, read_weights, refusal

_DETECTRON2_SCHEME = "detectron2://"
_COUNTER = "num_batches_tracked"  # counter of a batch norm, which frozen ones lack
# Endings of the names of tensors that weights of a backbone may lack. Files such as detectron2's
# ResNets have no batch statistics, which were folded into scale and shift: the model keeps its
# initial mean 0 and variance 1.
_CONSTANTS = (_COUNTER, "norm.running_mean", "norm.running_var")
# Endings of the names of constants that earlier versions of detectron2 saved; the config has them.
_NOT_SAVED = ("pixel_mean", "pixel_std", *(f"cell_anchors.{i}" for i in range(5)))
_OTHER_NUMBER = (
    "the weights have another number of classes than the data, or lack the layers that predict them"
)


@dataclass(frozen=True)
class DetectorLoadSummary:
    """The tensors that were loaded into a detector, and those that were not.

    Attributes:
        source: File or address of the weights.
        loaded: Names of the model's tensors that were loaded from the file.
        fresh: Names of the model's tensors that keep their initial values.
        unused: Names of the file's tensors that the detector lacks or has in another shape; for a
            classifier's weights, the names after conversion. If the class names of a detector's
            weights differ from those of the data, its class layers are not listed.
        other_classes: How the classes of a detector's weights differ from those of the data; empty
            if no difference is known. If they differ, the layers that depend on them are fresh.
        reordered: Whether the rows of the class layers were put into the data's order of classes.
        other_input: Keys of the config that give the network other images than those that the
            weights were trained on, with their values; empty if no difference is known.
    """

    source: str
    loaded: tuple[str, ...]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]
    other_classes: str = ""
    reordered: bool = False
    other_input: str = ""

    def __str__(self) -> str:
        parts = [f"loaded {len(self.loaded)} tensors from {self.source}"]
        if self.fresh:
            parts.append(f"{len(self.fresh)} are freshly initialised ({_modules(self.fresh)})")
        if self.unused:
            parts.append(f"{len(self.unused)} of the file are unused ({_modules(self.unused)})")
        if self.reordered:
            parts.append("class layers put into the data's order of classes")
        return "; ".join(parts)


def _modules(names: tuple[str, ...]) -> str:
    """Returns the names of the modules of tensors, two levels deep."""
    return some(list(dict.fromkeys(".".join(name.split(".")[:2]) for name in names)), 6)


def load_detector_weights(
    model: nn.Module,
    uri: str,
    cfg: CfgNode,
    *,
    classes: Sequence[str] | None = None,
    training: bool = True,
) -> DetectorLoadSummary:
    """Loads the weights at ``uri`` into a detector, and returns a summary of the loaded tensors.

    Layers of a detector that depend on its classes are freshly initialised if these differ from the
    classes of the data, and their rows are reordered if only the order differs. A classifier's
    weights are loaded into the bottom-up part: those of the FBNet in MODEL.ARCH, in any layout that
    weights/converters.py knows, or of the ResNet that the config describes.

    Args:
        model: Detector to load into.
        uri: ``zoo://NAME[.TAG]``, ``hf://OWNER/NAME``, ``detectron2://...`` or a path.
        cfg: Config that the detector was built from.
        classes: Class names of the data; None compares only the number of classes.
        training: False for an evaluation, which needs the weights of a detector with these classes.

    Raises:
        FBNetError: The weights cannot be downloaded or read, or do not fit. The model is unchanged.
    """
    weights = _read(uri)
    if weights.is_detector:
        order, difference = compare_classes(weights, classes)
        if classes is not None and difference and not training:
            raise refusal(weights.source, weights.classes, classes)
        summary = _load_detector(model, weights, order, difference, training)
        needed = detector_input(weights)
    elif not training:
        raise LoadError(
            f"{weights.source} does not hold a detector; a classifier's weights can start a "
            "training, but predict no boxes to score; give the weights of a trained detector"
        )
    else:
        summary, needed = _load_classifier(model, weights, cfg)
    return replace(summary, other_input=other_input(needed, cfg))


def _load_classifier(
    model: nn.Module, weights: Weights, cfg: CfgNode
) -> tuple[DetectorLoadSummary, dict[str, Any]]:
    """Loads the weights of a classifier into the bottom-up part.

    Returns:
        The summary, and the values of the config for which the weights were trained.
    """
    bottom_up = getattr(model.backbone, "bottom_up", model.backbone)
    prefix = next(name for name, module in model.named_modules() if module is bottom_up) + "."
    if isinstance(bottom_up, FBNetBottomUp):
        needed = classifier_input(weights)
        renamed = _fbnet_tensors(weights.tensors, weights.source, cfg)
    else:
        needed = resnet_input(weights, cfg)
        renamed = resnet_names(weights.tensors)
    return _load_bottom_up(model, prefix, renamed, weights.source), needed


def _read(uri: str) -> Weights:
    if uri.startswith((ZOO_SCHEME, HUB_SCHEME)):
        return read_weights(uri)
    path = Path(uri)
    if "://" in uri:
        _refuse_address(uri)
        path = _downloaded(uri)
    if path.suffix == ".pkl":
        tensors, author = read_pickled_arrays(path)
        return Weights(tensors, None, uri, {"author": author})
    return replace(read_weights(path), source=uri) if "://" in uri else read_weights(path)


def _refuse_address(uri: str) -> None:
    """Refuses addresses other than those of detectron2, as the config may be untrusted.

    detectron2 stores a download under the path in its address, so ``..`` is refused, too.
    """
    if not uri.startswith(_DETECTRON2_SCHEME) or ".." in uri.split("/"):
        raise DownloadError(
            f"MODEL.WEIGHTS {uri} may not be downloaded; allowed: {ZOO_SCHEME}NAME, "
            f"{HUB_SCHEME}OWNER/NAME, {_DETECTRON2_SCHEME}PATH without '..', or the path of a file"
        )


def _downloaded(uri: str) -> Path:
    """Returns the local path of a file such as ``detectron2://ImageNetPretrained/MSRA/R-50.pkl``."""
    try:
        return Path(PathManager.get_local_path(uri))
    except Exception as error:  # handlers of addresses raise errors of any kind
        reason = " ".join(str(error).split())[:120]
        raise DownloadError(
            f"cannot download {uri}: {reason}; download it elsewhere and set MODEL.WEIGHTS to the "
            "path of the file"
        ) from error


def _load_detector(
    model: nn.Module,
    weights: Weights,
    order: Sequence[int] | None,
    difference: str,
    training: bool,
) -> DetectorLoadSummary:
    state, tensors = model.state_dict(), weights.tensors
    if order is not None:
        tensors = reorder_detector(tensors, order)
    if difference:
        tensors = {k: v for k, v in tensors.items() if not k.startswith(CLASS_LAYERS)}
    fitting = {k: v for k, v in tensors.items() if k in state and state[k].shape == v.shape}
    fresh = [key for key in state if key not in fitting]
    unused = [key for key in tensors if key not in fitting and not key.endswith(_NOT_SAVED)]
    # frozen batch norms have no counters
    names = dict.fromkeys((*fresh, *unused))  # a tensor of another shape is in both
    unmatched = [key for key in names if not key.endswith(_COUNTER)]
    wrong = [key for key in unmatched if not key.startswith(CLASS_LAYERS)]
    if wrong:
        raise LoadError(
            f"{weights.source}: the weights belong to another detector: {len(wrong)} tensors are "
            f"missing, unknown or of another shape ({some(wrong, 3)}); use the config of their "
            "training"
        )
    if unmatched:
        difference = difference or _OTHER_NUMBER
        if not training:
            raise LoadError(
                f"{weights.source}: {difference}; use weights that were trained for these classes"
            )
    model.load_state_dict(fitting, strict=False)
    return DetectorLoadSummary(
        weights.source,
        tuple(fitting),
        tuple(fresh),
        tuple(unused),
        other_classes=difference,
        reordered=order is not None and list(order) != sorted(order),
    )


def _fbnet_tensors(tensors: dict[str, Tensor], uri: str, cfg: CfgNode) -> dict[str, Tensor]:
    """Returns the weights of an FBNet under the names of its backbone.

    They are first loaded into a whole classifier, which detects their layout and checks that they
    are complete.
    """
    with torch.random.fork_rng(devices=[]):  # the classifier's random weights are not used
        classifier = FBNetClassifier(table_from_config(cfg))
    load_state_dict(classifier, tensors, allow_new_head=True, source=uri)
    state = classifier.state_dict()
    return {key.removeprefix("backbone."): value for key, value in state.items()}


def _load_bottom_up(
    model: nn.Module, prefix: str, tensors: dict[str, Tensor], uri: str
) -> DetectorLoadSummary:
    state = {k[len(prefix) :]: v for k, v in model.state_dict().items() if k.startswith(prefix)}
    fitting = {k: v for k, v in tensors.items() if k in state and state[k].shape == v.shape}
    wrong = [k for k in state if k not in fitting and not k.endswith(_CONSTANTS)]
    if wrong:
        raise LoadError(
            f"{uri}: the weights do not fit the backbone: {len(wrong)} of its tensors are missing "
            f"or of another shape ({some(wrong, 3)}); use weights of the config's MODEL.ARCH or "
            "MODEL.RESNETS.DEPTH"
        )
    model.load_state_dict({prefix + key: value for key, value in fitting.items()}, strict=False)
    loaded = tuple(prefix + key for key in fitting)
    fresh = tuple(key for key in model.state_dict() if key not in set(loaded))
    return DetectorLoadSummary(uri, loaded, fresh, tuple(k for k in tensors if k not in fitting))
