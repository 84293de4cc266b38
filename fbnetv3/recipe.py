"""The training recipe, as configs describe it, searches propose it and checkpoints store it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from fbnetv3.errors import FBNetError, did_you_mean
from fbnetv3.registries import LOSSES, OPTIMIZERS, SCHEDULES
from fbnetv3.registry import Registry

AUGMENTATIONS = ("none", "imagenet", "cifar10", "randaugment", "trivialaugment")
AMP_DTYPES = ("float16", "bfloat16")


class RecipeError(FBNetError):
    """A recipe has an unknown key, or a value that is unknown or out of its range."""


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; the defaults are the paper's ImageNet recipe (Table 7, A.3).

    Attributes:
        optimizer: ``rmsprop`` (as TensorFlow computes it), ``sgd``, ``adamw``, ``lion``,
            ``muon``, or a registered name.
        nesterov: Whether the momentum of ``sgd`` and ``muon`` is Nesterov's.
        lr: Peak learning rate for ``reference_batch`` images per step; > 0.
        reference_batch: Images per optimizer step for which ``lr`` is given; the learning rate
            is scaled linearly with the actual number.
        batch_size: Images per forward and backward pass over all processes.
        accumulate_steps: Forward and backward passes per optimizer step; gradients are averaged.
        epochs: Length of the whole schedule in epochs; may be fractional; > 0.
        schedule: ``exponential`` (times ``decay`` per epoch after the warm-up), ``cosine`` to 0,
            ``constant``, ``steps`` (times ``decay`` at each of ``steps``), or a registered name.
        decay: Factor of the exponential and of the stepped schedule; in (0, 1].
        steps: Epochs of the stepped schedule, counted from the start; increasing.
        warmup_epochs: Epochs of linear warm-up, which are part of ``epochs``.
        warmup_factor: Share of the peak learning rate at the start of the warm-up; in [0, 1].
        momentum: Momentum of the optimizer; first beta of ``adamw``, ``lion`` and the AdamW part
            of ``muon``; in [0, 1).
        beta2: Second beta of ``adamw`` (usually 0.999), ``lion`` (0.99) and the AdamW part of
            ``muon`` (0.95); in [0, 1). 0 uses the usual value.
        layer_decay: Factor of the learning rate from each block to the one before it, for the
            fine-tuning of pretrained networks; in (0, 1].
        head_lr_factor: Factor of the learning rate of the classifier, or of all that follows a
            detector's backbone; > 0.
        freeze: Patterns of names, separated by commas, of modules and parameters that are not
            trained, such as ``stem,stages.0``.
        weight_decay: Weight decay of convolution and linear weights; in [0, 1].
        weight_decay_norm: Weight decay of norm weights and, unless ``weight_decay_bias`` is set, of
            all biases (paper: 0); in [0, 1].
        weight_decay_bias: Weight decay of the biases outside of norms; in [0, 1]. None uses
            ``weight_decay_norm``.
        ema: Whether an exponential moving average (EMA) of the weights is kept.
        ema_decay: Decay of the EMA per step (paper: 0.99985 ImageNet, 0.999 CIFAR-10, 0.9998
            COCO); in [0, 1).
        ema_warmup: Whether the decay is at most (1 + t) / (10 + t) at step t, for short trainings.
        dropout: Dropout probability before the classifier, ``p`` of Table 7; in [0, 1).
        drop_path: Rate of stochastic depth of the last block, ``d`` of Table 7; in [0, 1). The
            rate grows linearly over the blocks, from 0 at the first.
        mixup: Alpha of mixup's Beta distribution, ``m`` of Table 7; 0 turns mixup off.
        label_smoothing: Label smoothing of the loss; in [0, 1).
        loss: Loss of a classifier: ``cross_entropy``, ``binary_cross_entropy``, or a registered
            name. With images that have several labels, ``cross_entropy`` stands for
            ``binary_cross_entropy``.
        class_weights: Weight of each class in the loss, in the order of the classes; >= 0. If
            empty, all classes have the same weight.
        class_balance: Power p of additional weights ``n_c ** -p``, where n_c is the number of
            training images of a class, scaled to a mean over images of 1; in [0, 1].
        balanced_sampling: Power p with which an epoch draws ``n_c ** (1 - p)`` images of a class
            (up to a factor), from 0 (each image once) to 1 (equally many of each class).
        repeated_augment: Number of differently augmented copies of an image in a batch; an epoch
            then shows that many times fewer different images. >= 1.
        auto_augment: ``none``, ``imagenet`` or ``cifar10`` (torchvision's AutoAugment policies),
            ``randaugment`` or ``trivialaugment``.
        randaugment_ops: Operations of RandAugment per image; 1 to 10.
        randaugment_magnitude: Strength of RandAugment's operations; 0 to 30.
        cutmix: Alpha of CutMix's Beta distribution; 0 turns CutMix off. If mixup is on as well,
            each batch gets one of the two, drawn with equal probability.
        random_erasing: Probability with which a rectangle of an image is erased; in [0, 1].
        distill_alpha: Share of the distillation in the loss, if there is a teacher; in [0, 1].
        distill_temperature: Temperature of the distillation; > 0.
        clip_grad_norm: Largest 2-norm of the gradients of all parameters; 0 does not clip.
        amp: Whether to train in mixed precision, on devices that support it.
        amp_dtype: 16-bit type of the mixed precision: ``float16`` (on CUDA only) or ``bfloat16``.

    Raises:
        RecipeError: A value is unknown or out of its range, ``steps`` do not increase, or
            ``warmup_epochs`` are more than ``epochs``.
    """

    optimizer: str = "rmsprop"
    nesterov: bool = True
    lr: float = 0.026
    reference_batch: int = 256
    batch_size: int = 256
    accumulate_steps: int = 1
    epochs: float = 400.0
    schedule: str = "exponential"
    decay: float = 0.9875
    steps: tuple[float, ...] = ()
    warmup_epochs: float = 5.0
    warmup_factor: float = 0.1
    momentum: float = 0.9
    beta2: float = 0.0
    layer_decay: float = 1.0
    head_lr_factor: float = 1.0
    freeze: str = ""
    weight_decay: float = 7e-6
    weight_decay_norm: float = 0.0
    weight_decay_bias: float | None = None
    ema: bool = True
    ema_decay: float = 0.99985
    ema_warmup: bool = False
    dropout: float = 0.17
    drop_path: float = 0.09
    mixup: float = 0.19
    label_smoothing: float = 0.1
    class_weights: tuple[float, ...] = ()
    class_balance: float = 0.0
    balanced_sampling: float = 0.0
    repeated_augment: int = 1
    loss: str = "cross_entropy"
    auto_augment: str = "imagenet"
    randaugment_ops: int = 2
    randaugment_magnitude: int = 9
    cutmix: float = 0.0
    random_erasing: float = 0.0
    distill_alpha: float = 0.5
    distill_temperature: float = 1.0
    clip_grad_norm: float = 0.0
    amp: bool = False
    amp_dtype: str = "float16"

    def __post_init__(self) -> None:
        for key in ("steps", "class_weights"):
            object.__setattr__(self, key, tuple(getattr(self, key)))
        for key, choices in CHOICES.items():
            value = getattr(self, key)
            if value not in choices:
                allowed = f"allowed: {', '.join(choices)}"
                if isinstance(choices, Registry):
                    allowed = choices.allowed(value)
                raise RecipeError(f"recipe {key}={value!r} is unknown; {allowed}")
        for key, (low, high, text) in RANGES.items():
            value = getattr(self, key)
            if value is None and key in _OPTIONAL:
                continue
            if not (math.isfinite(value) and low <= value <= high):
                raise RecipeError(f"recipe {key}={value!r} is out of range; allowed: {text}")
        if any(a >= b for a, b in pairwise((0.0, *self.steps))):
            raise RecipeError(f"recipe steps={self.steps!r} must be above 0 and increasing")
        _check_class_weights(self.class_weights)
        if self.warmup_epochs > self.epochs:
            raise RecipeError(
                f"recipe warmup_epochs={self.warmup_epochs} is longer than epochs={self.epochs}"
            )

    @property
    def step_batch(self) -> int:
        """Images per optimizer step over all processes: ``batch_size * accumulate_steps``."""
        return self.batch_size * self.accumulate_steps

    @property
    def scaled_lr(self) -> float:
        """The peak learning rate for the real batch: ``lr * step_batch / reference_batch``."""
        return self.lr * self.step_batch / self.reference_batch

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as plain values, for yaml files and checkpoints."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """Builds a recipe from plain values; missing keys get their defaults.

        Raises:
            RecipeError: A key is unknown, or a value is unknown or out of its range.
        """
        known = {f.name for f in dataclasses.fields(cls)}
        for key in values:
            if key not in known:
                raise RecipeError(f"recipe has no key {key!r}{did_you_mean(key, known)}")
        return cls(**values)


def _check_class_weights(weights: tuple[Any, ...]) -> None:
    is_valid = all(
        isinstance(w, int | float) and not isinstance(w, bool) and 0 <= w < math.inf
        for w in weights
    )
    if not is_valid or (weights and not any(weights)):
        raise RecipeError(
            f"recipe class_weights={weights!r} is not allowed; allowed: a number >= 0 for each "
            "class, at least one of them above 0"
        )


_OPTIONAL = ("weight_decay_bias",)  # keys of RANGES that may be None
CHOICES: dict[str, Iterable[str]] = {
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "loss": LOSSES,
    "auto_augment": AUGMENTATIONS,
    "amp_dtype": AMP_DTYPES,
}
# The bounds of RANGES are inclusive; _BELOW_ONE stands for < 1, and _POSITIVE for > 0.
_BELOW_ONE = math.nextafter(1.0, 0.0)
_POSITIVE = math.ulp(0.0)
RANGES: dict[str, tuple[float, float, str]] = {
    "lr": (_POSITIVE, math.inf, "> 0"),
    "reference_batch": (1, math.inf, ">= 1"),
    "batch_size": (1, math.inf, ">= 1"),
    "accumulate_steps": (1, math.inf, ">= 1"),
    "epochs": (_POSITIVE, math.inf, "> 0"),
    "decay": (_POSITIVE, 1.0, "in (0, 1]"),
    "warmup_epochs": (0.0, math.inf, ">= 0"),
    "warmup_factor": (0.0, 1.0, "in [0, 1]"),
    "momentum": (0.0, _BELOW_ONE, "in [0, 1)"),
    "beta2": (0.0, _BELOW_ONE, "in [0, 1)"),
    "layer_decay": (_POSITIVE, 1.0, "in (0, 1]"),
    "head_lr_factor": (_POSITIVE, math.inf, "> 0"),
    "class_balance": (0.0, 1.0, "in [0, 1]"),
    "balanced_sampling": (0.0, 1.0, "in [0, 1]"),
    "repeated_augment": (1, math.inf, ">= 1"),
    "randaugment_ops": (1, 10, "1 to 10"),
    "randaugment_magnitude": (0, 30, "0 to 30"),
    "cutmix": (0.0, math.inf, ">= 0"),
    "random_erasing": (0.0, 1.0, "in [0, 1]"),
    "distill_alpha": (0.0, 1.0, "in [0, 1]"),
    "distill_temperature": (_POSITIVE, math.inf, "> 0"),
    "weight_decay": (0.0, 1.0, "in [0, 1]"),
    "weight_decay_norm": (0.0, 1.0, "in [0, 1]"),
    "weight_decay_bias": (0.0, 1.0, "in [0, 1]"),
    "ema_decay": (0.0, _BELOW_ONE, "in [0, 1)"),
    "dropout": (0.0, _BELOW_ONE, "in [0, 1)"),
    "drop_path": (0.0, _BELOW_ONE, "in [0, 1)"),
    "mixup": (0.0, math.inf, ">= 0"),
    "label_smoothing": (0.0, _BELOW_ONE, "in [0, 1)"),
    "clip_grad_norm": (0.0, math.inf, ">= 0"),
}
