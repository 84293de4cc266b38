"""Networks built from architecture tables, with torch and without detectron2."""

from __future__ import annotations

from fbnetv3.modeling import blocks as _blocks  # noqa: F401 - registers the built-in ops
from fbnetv3.modeling.backbone import FBNetBackbone
from fbnetv3.modeling.classifier import FBNetClassifier, build_model, reset_classifier
from fbnetv3.modeling.deploy import deploy
from fbnetv3.modeling.head import ClassifierHead
from fbnetv3.modeling.registry import MODULES, build_layer, register_op

__all__ = [
    "MODULES",
    "ClassifierHead",
    "FBNetBackbone",
    "FBNetClassifier",
    "build_layer",
    "build_model",
    "deploy",
    "register_op",
    "reset_classifier",
]
