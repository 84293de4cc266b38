"""Optimizers: RMSProp in TensorFlow's form, torch's and timm's, over groups of parameters.

Norms and biases can have other weight decays than the weights of convolutions and linear layers,
and the layers can have different learning rates.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.optim import Optimizer

from fbnetv3.engine.layer_rates import lr_factors
from fbnetv3.errors import FBNetError, first_line
from fbnetv3.recipe import Recipe
from fbnetv3.registries import OPTIMIZERS
from fbnetv3.requires import require
from fbnetv3.weights.converters import heads_of

# Modules whose scale and shift get the weight decay of norms
_NORMS = (_BatchNorm, _InstanceNorm, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm)


class OptimError(FBNetError):
    """An optimizer cannot be made from its values or parameters, or cannot make a step."""


class RMSpropTF(Optimizer):
    """RMSProp as TensorFlow computes it, which EfficientNet-like recipes mean by "RMSProp".

    For each weight w with gradient g::

        g   = g + weight_decay * w
        sq  = alpha * sq + (1 - alpha) * g ** 2        # sq starts as 1
        buf = momentum * buf + lr * g / sqrt(sq + eps)
        w   = w - buf

    It differs from ``torch.optim.RMSprop`` in three ways: sq starts at one (not zero), eps is
    inside the root, and lr is inside the momentum buffer, so a change of lr acts gradually.

    The paper trains with RMSProp at lr 0.026 and gives no alpha, eps or momentum. The defaults
    here (0.9, 1e-3, 0.9) are those of the MnasNet and EfficientNet code, whose search spaces and
    recipe FBNetV3 shares. With torch's plain defaults the first step moves each weight by
    lr / sqrt(1 - 0.99) = 10 lr, however small its gradient (unless it is near eps, 1e-8), which can
    make the training diverge.

    Args:
        params: Parameters, or groups of them.
        lr: Learning rate; >= 0.
        alpha: Decay of the moving average of squared gradients; in [0, 1).
        eps: Constant added to that average inside the root; > 0.
        momentum: Momentum; in [0, 1).
        weight_decay: L2 penalty, added to the gradient; >= 0.

    Raises:
        OptimError: A value is out of its range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        alpha: float = 0.9,
        eps: float = 1e-3,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
    ) -> None:
        _require("lr", lr, lr >= 0, ">= 0")
        _require("alpha", alpha, 0 <= alpha < 1, "in [0, 1)")
        _require("eps", eps, eps > 0, "> 0")
        _require("momentum", momentum, 0 <= momentum < 1, "in [0, 1)")
        _require("weight_decay", weight_decay, weight_decay >= 0, ">= 0")
        values = {"lr": lr, "alpha": alpha, "eps": eps, "momentum": momentum}
        super().__init__(params, {**values, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates the parameters.

        Args:
            closure: Function that computes the loss again, with gradients, and returns it.

        Returns:
            The loss that the closure returned, or None without a closure.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for params in _by_kind(p for p in group["params"] if p.grad is not None):
                self._step_together(params, group)
        return loss

    def _step_together(self, params: list[Tensor], group: dict[str, Any]) -> None:
        """Updates tensors of one dtype and device with fused multi-tensor operations."""
        states = [self._state_of(p) for p in params]
        squares = [s["square_avg"] for s in states]
        buffers = [s["momentum_buffer"] for s in states]
        grads = [p.grad for p in params if p.grad is not None]
        if group["weight_decay"]:
            grads = list(torch._foreach_add(grads, params, alpha=group["weight_decay"]))
        torch._foreach_mul_(squares, group["alpha"])
        torch._foreach_addcmul_(squares, grads, grads, value=1 - group["alpha"])
        roots = torch._foreach_add(squares, group["eps"])
        torch._foreach_sqrt_(roots)
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_addcdiv_(buffers, grads, roots, value=group["lr"])
        torch._foreach_sub_(params, buffers)

    def _state_of(self, param: Tensor) -> dict[str, Tensor]:
        state = self.state[param]
        if not state:
            state["square_avg"] = torch.ones_like(param, memory_format=torch.preserve_format)
            state["momentum_buffer"] = torch.zeros_like(param, memory_format=torch.preserve_format)
        return state


def _require(key: str, value: float, holds: bool, allowed: str) -> None:
    if not holds:
        raise OptimError(f"RMSpropTF {key}={value!r} is out of range; allowed: {allowed}")


def _by_kind(params: Iterable[Tensor]) -> list[list[Tensor]]:
    kinds: dict[Any, list[Tensor]] = defaultdict(list)
    for param in params:
        kinds[param.dtype, param.device].append(param)
    return list(kinds.values())


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Returns parameter groups, each with its weight decay.

    The first group has all tensors of two or more dimensions, such as the weights of convolutions
    and linear layers. The second one has all tensors of at most one dimension; in the networks of
    the zoo and of torchvision, these are the norm weights and the biases. If the recipe has a
    separate decay for biases, as detectron2's recipes do, the tensors of the second group that are
    outside of torch's norm layers form a third group instead. As in detectron2, the third group
    includes the scale and shift that RetinaNet's heads share (CycleBatchNormList).

    Args:
        model: Network; its frozen parameters (``requires_grad=False``) are left out.
        recipe: Recipe with the weight decays.

    Raises:
        OptimError: The model has no parameter to train.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    if not trained:
        raise OptimError("the model has no trainable parameters (requires_grad is False for all)")
    weights = [p for p in trained if p.ndim > 1]
    norms = [p for p in trained if p.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": recipe.weight_decay},
        {"params": norms, "weight_decay": recipe.weight_decay_norm},
    ]
    if recipe.weight_decay_bias is None:
        return groups
    norm_ids = {id(p) for m in model.modules() if isinstance(m, _NORMS) for p in m.parameters()}
    groups[1]["params"] = [p for p in norms if id(p) in norm_ids]
    others = [p for p in norms if id(p) not in norm_ids]
    return [*groups, {"params": others, "weight_decay": recipe.weight_decay_bias}]


def _with_rates(
    groups: list[dict[str, Any]], model: nn.Module, recipe: Recipe
) -> list[dict[str, Any]]:
    """Splits groups by the factor of the learning rate; the highest factor comes first.

    The groups are unchanged if the recipe has the same learning rate for all parameters.
    """
    if recipe.layer_decay == 1 and recipe.head_lr_factor == 1:
        return groups
    by_name = lr_factors(model, recipe)
    factor = {id(p): by_name[name] for name, p in model.named_parameters()}
    split = []
    for value in sorted(set(factor.values()), reverse=True):
        for group in groups:
            params = [p for p in group["params"] if factor[id(p)] == value]
            if params:
                split.append({**group, "params": params, "lr": recipe.scaled_lr * value})
    return split


def _without_muon(groups: list[dict[str, Any]], model: nn.Module) -> list[dict[str, Any]]:
    """Splits off the weights of the classifier, which Muon leaves to AdamW."""
    names = tuple(f"{name}." for name in heads_of(model))
    heads = {id(p) for name, p in model.named_parameters() if name.startswith(names)}
    split = []
    for group in groups:
        for is_head in (False, True):
            params = [p for p in group["params"] if (id(p) in heads) is is_head]
            if params:
                split.append({**group, "params": params, "use_fallback": is_head})
    return split


def _betas(recipe: Recipe, usual: float) -> tuple[float, float]:
    return recipe.momentum, recipe.beta2 or usual


@OPTIMIZERS.register("rmsprop")
def _rmsprop(groups: list[dict[str, Any]], recipe: Recipe) -> Optimizer:
    return RMSpropTF(groups, recipe.scaled_lr, momentum=recipe.momentum)


@OPTIMIZERS.register("sgd")
def _sgd(groups: list[dict[str, Any]], recipe: Recipe) -> Optimizer:
    # torch does not allow Nesterov without momentum
    nesterov = recipe.nesterov and recipe.momentum > 0
    return torch.optim.SGD(groups, recipe.scaled_lr, recipe.momentum, nesterov=nesterov)


@OPTIMIZERS.register("adamw")
def _adamw(groups: list[dict[str, Any]], recipe: Recipe) -> Optimizer:
    return torch.optim.AdamW(groups, recipe.scaled_lr, _betas(recipe, 0.999))


@OPTIMIZERS.register("lion")
def _lion(groups: list[dict[str, Any]], recipe: Recipe) -> Optimizer:
    optimizer: Optimizer = require("timm.optim", "timm").Lion(
        groups, recipe.scaled_lr, _betas(recipe, 0.99)
    )
    return optimizer


@OPTIMIZERS.register("muon")
def _muon(groups: list[dict[str, Any]], recipe: Recipe) -> Optimizer:
    # torch.optim.Muon takes matrices only; timm's flattens convolutions and has AdamW for the rest
    optimizer: Optimizer = require("timm.optim", "timm").Muon(
        groups,
        recipe.scaled_lr,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        betas=_betas(recipe, 0.95),
    )
    return optimizer


def build_optimizer(model: nn.Module, recipe: Recipe) -> Optimizer:
    """Returns the recipe's optimizer over ``model``, with ``recipe.scaled_lr``, the peak lr.

    The paper names RMSProp and SGD but gives no momentum, alpha or eps. Both use the recipe's
    momentum (0.9 by default); alpha and eps are the defaults of :class:`RMSpropTF`. SGD uses
    Nesterov's momentum unless the recipe switches it off. AdamW is torch's; Lion and Muon are
    timm's. These three decouple the weight decay: a step subtracts ``lr * weight_decay * w``.
    ``muon`` updates the weights of convolutions and linear layers by Muon, and the classifier,
    norms and biases by AdamW, with the same learning rate but for the recipe's factors.

    Args:
        model: Network; its frozen parameters (``requires_grad=False``) are left out.
        recipe: Recipe with the optimizer, lr, momentum, weight decays and factors of the lr.

    Raises:
        OptimError: The model has no parameter to train, or the optimizer cannot be made.
        MissingPackageError: The optimizer needs timm, which is not installed.
    """
    groups = _with_rates(parameter_groups(model, recipe), model, recipe)
    if recipe.optimizer == "muon":
        groups = _without_muon(groups, model)
    return _call_factory(groups, recipe)


def _call_factory(groups: list[dict[str, Any]], recipe: Recipe) -> Optimizer:
    """Calls the function that is registered for the recipe's optimizer, which may be a user's.

    Raises:
        OptimError: The function does not accept the values, lacks a value, returns no optimizer,
            or returns an optimizer without a learning rate.
    """
    name = recipe.optimizer
    try:
        optimizer = OPTIMIZERS.get(name)(groups, recipe)
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        raise OptimError(
            f"optimizer {name} cannot be made ({type(error).__name__}: {first_line(error)}); its "
            "function is called with groups of parameters and an fbnetv3.recipe.Recipe, whose "
            "fields it can read"
        ) from error
    if not isinstance(optimizer, Optimizer):
        kind = type(optimizer).__name__
        raise OptimError(f"optimizer {name}: its function made a {kind}, not a torch Optimizer")
    if not all("lr" in group for group in optimizer.param_groups):
        raise OptimError(
            f"optimizer {name}: its param_groups lack the key 'lr', which the schedule changes; "
            "give Optimizer.__init__ the defaults {'lr': recipe.scaled_lr}, and read group['lr'] "
            "in step()"
        )
    return optimizer
