"""The parts of detectron2 that detectors need, imported without warnings of its dependencies.

Files of this package import them from here, so that the warnings are hidden whichever file is
imported first.
"""

from __future__ import annotations

from fbnetv3.requires import quiet_detectron2

with quiet_detectron2():
    from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
    from detectron2.data.detection_utils import convert_PIL_to_numpy
    from detectron2.data.transforms import (
        AugInput,
        Augmentation,
        ResizeShortestEdge,
        ResizeTransform,
    )
    from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
    from detectron2.modeling import BACKBONE_REGISTRY, FPN, Backbone, build_model
    from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
    from detectron2.modeling.meta_arch.retinanet import RetinaNetHead
    from fvcore.nn import sigmoid_focal_loss_jit

__all__ = [
    "BACKBONE_REGISTRY",
    "FPN",
    "AugInput",
    "Augmentation",
    "Backbone",
    "DatasetCatalog",
    "DatasetMapper",
    "FrozenBatchNorm2d",
    "LastLevelMaxPool",
    "LastLevelP6P7",
    "MetadataCatalog",
    "ResizeShortestEdge",
    "ResizeTransform",
    "RetinaNetHead",
    "ShapeSpec",
    "build_model",
    "convert_PIL_to_numpy",
    "sigmoid_focal_loss_jit",
]
