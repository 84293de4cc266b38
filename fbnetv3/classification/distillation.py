"""Knowledge distillation (Hinton et al., 2015): the teacher network and the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fbnetv3 import imagenet
from fbnetv3.arch import Arch
from fbnetv3.classification.dry_run import check_network
from fbnetv3.config import CfgNode, ConfigError
from fbnetv3.config.archs import key_in_errors
from fbnetv3.modeling import build_model
from fbnetv3.weights.download import ZOO_SCHEME
from fbnetv3.weights.load import load_weights, read_weights
from fbnetv3.weights.metadata import check_metadata
from fbnetv3.weights.networks import arch_of, preprocessing_of
from fbnetv3.weights.records import find_record


class Teacher:
    """A network in evaluation mode that computes logits for the student's input.

    Args:
        model: Network; its parameters are frozen.
        factor: Factor (3,) from the student's normalised pixels to the teacher's.
        shift: Numbers (3,) that are added to the product.
    """

    def __init__(self, model: nn.Module, factor: Tensor, shift: Tensor) -> None:
        self._model = model.eval().requires_grad_(False)
        is_same = bool((factor == 1).all() and (shift == 0).all())
        self._affine = None if is_same else (factor[:, None, None], shift[:, None, None])

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Returns the logits (N, classes) of images that are normalised for the student."""
        if self._affine is not None:
            images = images * self._affine[0] + self._affine[1]
        logits: Tensor = self._model(images)
        return logits


@dataclass(frozen=True)
class Distillation:
    """A teacher, and the weight of its predictions in the loss.

    Attributes:
        teacher: The teacher.
        alpha: Share of the distillation in the loss, in [0, 1].
        temperature: Temperature T > 0, by which the logits of both networks are divided.
    """

    teacher: Teacher
    alpha: float
    temperature: float

    def losses(
        self, loss: Tensor, logits: Tensor, images: Tensor, several: bool
    ) -> dict[str, Tensor]:
        """Returns ``loss_labels``, weighted by 1 - alpha, and ``loss_teacher``, by alpha.

        Args:
            loss: Loss of the labels.
            logits: Logits of the student, (N, classes).
            images: Images that gave these logits, (N, 3, H, W).
            several: Whether images may have several labels.
        """
        divergence = distillation_loss(logits, self.teacher(images), self.temperature, several)
        return {
            "loss_labels": (1 - self.alpha) * loss,
            "loss_teacher": self.alpha * divergence,
        }


def distillation_loss(
    logits: Tensor, teacher: Tensor, temperature: float, several: bool = False
) -> Tensor:
    """Returns ``T^2 KL(p_T || q_T)`` of softened predictions, averaged over images.

    p_T and q_T are the softmax of the teacher's and the student's logits divided by T. If images
    may have several labels, p_T and q_T are sigmoids, and the average is also over classes.

    Args:
        logits: Logits of the student, (N, classes).
        teacher: Logits of the teacher, (N, classes).
        temperature: Temperature T > 0.
        several: Whether images may have several labels.
    """
    student, target = logits.float() / temperature, teacher.float() / temperature
    if several:
        p = target.sigmoid()
        entropy = F.binary_cross_entropy_with_logits(target, p)
        return (F.binary_cross_entropy_with_logits(student, p) - entropy) * temperature**2
    log_q, log_p = student.log_softmax(1), target.log_softmax(1)
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True) * temperature**2


def teacher_from_config(
    cfg: CfgNode,
    classes: Sequence[str],
    side: int,
    device: torch.device,
    ignore_class_names: bool = False,
) -> Teacher:
    """Builds the network of MODEL.TEACHER with its weights.

    Args:
        cfg: Config of a classifier.
        classes: Names of the data's classes, which must be the teacher's, in any order, unless
            ``ignore_class_names`` is set.
        side: Side of the images in pixels.
        device: Device of the training.
        ignore_class_names: Whether only the number of classes must be the same, not their names.

    Raises:
        ConfigError: The weights cannot be read or are not of a classifier of these classes, or the
            network cannot process the images.
    """
    uri = cfg.MODEL.TEACHER
    with key_in_errors("MODEL.TEACHER"):
        arch, mean, std = _network_and_pixels(uri)
        model = build_model(arch, len(classes))
        names = None if ignore_class_names else list(classes)
        load_weights(model, uri, classes=names)
    try:
        check_network(model.eval(), arch, len(classes), side, batch=1, training=False)
    except ConfigError as error:
        raise ConfigError(f"MODEL.TEACHER {uri}: {error}") from error
    student_mean = torch.tensor(list(cfg.INPUT.MEAN))
    student_std, teacher_std = torch.tensor(list(cfg.INPUT.STD)), torch.tensor(std)
    factor, shift = student_std / teacher_std, (student_mean - torch.tensor(mean)) / teacher_std
    model = model.to(device).to(memory_format=torch.channels_last)
    return Teacher(model, factor.to(device), shift.to(device))


def _network_and_pixels(uri: str) -> tuple[Arch | str, list[float], list[float]]:
    """Returns the architecture of weights, and the mean and standard deviation for its input."""
    name = uri.removeprefix(ZOO_SCHEME)
    if name != uri:
        record = find_record(name)
        return record.arch(), list(record.mean), list(record.std)
    metadata = read_weights(uri).metadata
    check_metadata(metadata, uri)
    saved = preprocessing_of(metadata)
    mean, std = saved.get("mean", imagenet.MEAN), saved.get("std", imagenet.STD)
    return arch_of(metadata, None, uri), list(mean), list(std)
