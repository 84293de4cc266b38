"""Building the detector that a config describes."""

from __future__ import annotations

import torch
from torch import nn

from fbnetv3.config import CfgNode, ConfigError, get_cfg, get_value
from fbnetv3.detection import backbone as _backbone  # noqa: F401 - registers the backbones
from fbnetv3.detection.detectron2_parts import build_model, sigmoid_focal_loss_jit
from fbnetv3.errors import FBNetError, first_line


def build_detector(
    cfg: CfgNode, classes: list[str], device: torch.device
) -> tuple[nn.Module, CfgNode]:
    """Builds a meta-architecture of detectron2, in the channels-last memory format.

    Args:
        cfg: Config of a detector.
        classes: Class names of the data.
        device: Device of the detector.

    Returns:
        The detector in training mode, and the config with the number of classes filled in.

    Raises:
        ConfigError: The name of a part or of a feature map is unknown, a NUM_CLASSES that was
            set (of MODEL, RETINANET or ROI_HEADS) is not the number of classes, or other keys do
            not fit.
    """
    _check_num_classes(cfg, len(classes))
    _check_pixels(cfg)
    full = _filled_in(cfg, len(classes), device)
    try:
        model = build_model(full)
    except KeyError as error:
        raise ConfigError(
            f"detectron2 does not know a name in MODEL: {error}; compare META_ARCHITECTURE "
            f"{cfg.MODEL.META_ARCHITECTURE!r}, BACKBONE.NAME {cfg.MODEL.BACKBONE.NAME!r}, "
            "ANCHOR_GENERATOR.NAME and the keys IN_FEATURES with a config in model_zoo/detection"
        ) from error
    except (FBNetError, MemoryError):
        raise
    except Exception as error:  # detectron2 asserts that keys fit each other
        raise ConfigError(
            f"MODEL: detectron2 cannot build {cfg.MODEL.META_ARCHITECTURE} "
            f"({type(error).__name__}: {first_line(error)}); compare MODEL.ANCHOR_GENERATOR, FPN, "
            "RETINANET and ROI_HEADS with a config in model_zoo/detection"
        ) from error
    return model.to(memory_format=torch.channels_last), full


def _filled_in(cfg: CfgNode, num_classes: int, device: torch.device) -> CfgNode:
    full = cfg.clone()
    full.defrost()
    full.MODEL.RETINANET.NUM_CLASSES = full.MODEL.ROI_HEADS.NUM_CLASSES = num_classes
    full.MODEL.NUM_CLASSES = num_classes
    full.MODEL.DEVICE = str(device)
    full.freeze()
    return full


def _check_pixels(cfg: CfgNode) -> None:
    mean, std = list(cfg.MODEL.PIXEL_MEAN), list(cfg.MODEL.PIXEL_STD)
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise ConfigError(
            f"MODEL.PIXEL_MEAN is {mean}, PIXEL_STD is {std}; allowed: three numbers each, "
            "PIXEL_STD > 0"
        )


def _check_num_classes(cfg: CfgNode, num_classes: int) -> None:
    """Checks the three keys for the number of classes.

    A key that the config leaves at its default without setting it, and MODEL.NUM_CLASSES 0, are
    accepted.
    """
    defaults = get_cfg()
    for key in ("MODEL.NUM_CLASSES", "MODEL.RETINANET.NUM_CLASSES", "MODEL.ROI_HEADS.NUM_CLASSES"):
        value = get_value(cfg, key)
        is_default = value == get_value(defaults, key) and key not in cfg.given_keys()
        if value != num_classes and not is_default and (value or key != "MODEL.NUM_CLASSES"):
            raise ConfigError(
                f"{key} is {value}, but the data has {num_classes} classes; leave it out, and set "
                "MODEL.NUM_CLASSES to 0, to use that number"
            )


def warm_up_focal_loss(device: torch.device) -> None:
    """Calls RetinaNet's focal loss and its gradient once.

    TorchScript runs the first call of a function unoptimised, and later calls with other formulas,
    whose gradients are rounded differently. Without this call the first step of each process would
    be rounded differently from later steps, and a run that was killed and resumed would not be
    bitwise equal to an uninterrupted one.

    Args:
        device: Device of the training; TorchScript optimises for the device of the first call.
    """
    logits = torch.zeros(2, 2, device=device, requires_grad=True)
    truth = torch.zeros_like(logits)
    sigmoid_focal_loss_jit(logits, truth, alpha=0.25, gamma=2.0, reduction="sum").backward()


def network_name(cfg: CfgNode) -> str:
    """Returns meta-architecture and backbone, such as ``RetinaNet on fbnetv3_a0``."""
    name = cfg.MODEL.ARCH if "fbnet" in cfg.MODEL.BACKBONE.NAME else f"R-{cfg.MODEL.RESNETS.DEPTH}"
    return f"{cfg.MODEL.META_ARCHITECTURE} on {name}"
