"""MODEL.COMPILE: training with torch.compile, and without it once the compiler has failed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from fbnetv3.errors import FBNetError

_log = logging.getLogger("fbnetv3")
# Beginnings of the names of modules whose errors come from the compiler
_COMPILERS = ("torch._dynamo.", "torch._inductor.", "torch._functorch.", "triton.")


class CompileError(FBNetError):
    """The compiler failed in a backward pass, after which the step cannot be repeated."""


class CompiledNetwork(nn.Module):
    """Calls the compiled form of a network, or the network itself once its compiler has failed.

    Its tensors are the network's. Take state dicts and averages of the unwrapped network
    (:func:`fbnetv3.engine.ema.unwrap`), so that the names of the tensors have no prefix.

    Args:
        model: Network, possibly wrapped in DistributedDataParallel.
        compile_model: Function that returns the compiled form, which starts the compiler when it
            is first called.
    """

    def __init__(
        self, model: nn.Module, compile_model: Callable[[nn.Module], Any] = torch.compile
    ) -> None:
        super().__init__()
        self._orig_mod = model
        # Empty once the compiler has failed. It holds a bound method, since the compiled form as a
        # submodule would list all tensors twice.
        self._call: list[Callable[..., Any]] = []
        self._has_run = False
        try:
            self._call.append(compile_model(model).__call__)
        except Exception as error:
            self._fall_back(error)

    @property
    def is_compiled(self) -> bool:
        """Whether the network is still called in its compiled form."""
        return bool(self._call)

    def forward(self, *args: Any) -> Any:
        """Returns the network's output; if the compiler fails, the call is repeated without it."""
        if not self._call:
            return self._orig_mod(*args)
        # The first call compiles. If it fails halfway, it may have changed running statistics and
        # drawn random numbers, which is undone.
        before = None if self._has_run else _State(self._orig_mod)
        try:
            output = self._call[0](*args)
        except Exception as error:
            if not is_compiler_error(error):
                raise
            self._fall_back(error)
            if before is not None:
                before.restore()
            return self._orig_mod(*args)
        self._has_run = True
        return output

    def _fall_back(self, error: Exception) -> None:
        self._call.clear()
        _log.warning(
            "MODEL.COMPILE: torch.compile failed (%s: %s); the training goes on without it",
            type(error).__name__,
            _reason(error),
        )


class _State:
    """A network's buffers and the states of torch's CPU and current CUDA generators, to restore."""

    def __init__(self, model: nn.Module) -> None:
        self._buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
        self._cpu = torch.get_rng_state()
        self._gpu = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None

    @torch.no_grad()
    def restore(self) -> None:
        for buffer, before in self._buffers:
            buffer.copy_(before)
        torch.set_rng_state(self._cpu)
        if self._gpu is not None:
            torch.cuda.set_rng_state(self._gpu)


def _reason(error: BaseException) -> str:
    """Returns an error's text on one line; its first line may be only ``backend=... raised:``."""
    lines = [line for line in str(error).splitlines() if line][:2]
    return " ".join(lines if lines and lines[0].endswith(":") else lines[:1])[:300]


def is_compiler_error(error: BaseException) -> bool:
    """Returns whether an error comes from torch.compile, and not from the network's own code."""
    cause: BaseException | None = error
    while cause is not None:
        if f"{type(cause).__module__}.".startswith(_COMPILERS):
            return True
        cause = cause.__cause__
    return False


def backward_error(error: Exception) -> CompileError | None:
    """Returns the error to raise if the compiler failed in a backward pass; otherwise None."""
    if not is_compiler_error(error):
        return None
    return CompileError(
        f"MODEL.COMPILE: torch.compile failed in a backward pass ({type(error).__name__}: "
        f"{_reason(error)}); set MODEL.COMPILE False, and continue with --resume"
    )
