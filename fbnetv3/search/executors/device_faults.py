"""Faults of memory, devices and data that end the training of a candidate.

An error is classified by tables of exception types and of message patterns, since PyTorch, cuDNN,
cuBLAS, NCCL and drivers report the same fault in many ways, and this module imports none of them.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from typing import NamedTuple

MEMORY, DEVICE, DATA = "out of memory", "device error", "data error"
"""Kinds of faults. Only MEMORY depends on the candidate, which may be too large."""
TIME = "out of time"
"""Kind of a failure that is not a fault: the candidate took longer than its time limit."""
OUTSIDE = frozenset({DEVICE, DATA})
"""Kinds of faults that say nothing about the candidate."""
NEEDS_NEW_PROCESS = frozenset({MEMORY, DEVICE})
"""Kinds of faults after which a worker process gets no further trials.

After a device error, the CUDA context of the process is unusable. After memory ran out, the
allocator may keep blocks of the failed training.
"""

_MEMORY_TYPES = frozenset({"OutOfMemoryError", "MemoryError"})
"""Names of the exception types of PyTorch and Python that mean MEMORY."""
# Name of another exception type of FBNetV3, PyTorch, Pillow or Python -> kind
_TYPES = {
    "AcceleratorError": DEVICE,
    "DataError": DATA,
    "UnidentifiedImageError": DATA,
    "FileNotFoundError": DATA,
    "ConnectionError": DATA,
}
# Pattern in the message of a RuntimeError, in lower case -> kind; the first match counts
_TEXTS = {
    r"out of memory": MEMORY,
    r"(cudnn|cublas|cusolver|cusparse|cufft|curand)_(status_)?alloc_failed": MEMORY,
    r"cannot allocate memory|can't allocate memory|unable to allocate": MEMORY,
    r"data ?loader worker .* killed by signal: (killed|bus error)": MEMORY,
    r"\b(cuda|hip|cudnn|cublas|nccl) (driver )?error": DEVICE,
    r"(cudnn|cublas|cusolver|cusparse|cufft|curand)_status_": DEVICE,
    r"\bnccl\w*error|nccl communicator|nccl (operation|watchdog)": DEVICE,
    r"device-side assert|illegal memory access|misaligned address": DEVICE,
    r"unspecified launch failure": DEVICE,
    r"no cuda-capable device|no nvidia driver|no (cuda|hip) gpus are available": DEVICE,
    r"cuda-capable device\(s\) is/are busy": DEVICE,
    r"\becc\b.*(error|uncorrect)|uncorrectable ecc|\bxid\b|fallen off the bus": DEVICE,
}
_PATTERNS = [(re.compile(text), kind) for text, kind in _TEXTS.items()]
# Texts in stored reasons of failures. The kernel ends a process by SIGKILL when memory runs out.
_KILLED = "was ended by SIGKILL"
_OVERDUE = re.compile(r"took longer than [\d.e+-]+ s\b")


class Fault(NamedTuple):
    """The fault behind an error.

    Attributes:
        kind: MEMORY, DEVICE or DATA.
        error: The exception that shows the fault: the error itself, or one of its causes.
    """

    kind: str
    error: BaseException


def find_fault(error: BaseException) -> Fault | None:
    """Returns the fault behind an error; None if there is none.

    Args:
        error: Exception that ended an evaluation. Its causes and contexts are examined too. Of
            several faults, the one raised first counts, since later ones follow from it.
    """
    faults = [Fault(kind, cause) for cause in _chain(error) if (kind := _kind(cause)) is not None]
    return faults[-1] if faults else None


def failure_kind(reason: str | None) -> str | None:
    """Returns MEMORY or TIME if a trial failed for this reason; None for all other failures.

    Failures of these kinds depend on the size of a candidate, so that a model can predict them.

    Args:
        reason: Reason of the failure, as stored in the trial; None: no failure.
    """
    if reason is None:
        return None
    if _OVERDUE.match(reason):
        return TIME
    is_memory = _KILLED in reason or any(name in reason for name in _MEMORY_TYPES)
    return MEMORY if is_memory or _kind_of_text(reason) == MEMORY else None


def ran_out_of_memory(cause_of_death: str) -> bool:
    """Returns whether a worker probably ended because memory ran out.

    Args:
        cause_of_death: How the worker ended, such as ``was ended by SIGKILL``; see
            ``Worker.cause_of_death``.
    """
    return _KILLED in cause_of_death


def _kind(error: BaseException) -> str | None:
    names = {cls.__name__ for cls in type(error).__mro__}
    if names & _MEMORY_TYPES or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return MEMORY
    if isinstance(error, RuntimeError) and (kind := _kind_of_text(_text(error))) is not None:
        return kind
    return next((kind for name, kind in _TYPES.items() if name in names), None)


def _kind_of_text(text: str) -> str | None:
    lower = " ".join(text.split()).lower()
    return next((kind for pattern, kind in _PATTERNS if pattern.search(lower)), None)


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # str() of a foreign exception may raise anything
        return ""


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yields an error, its cause (or its context if it has no cause), and so on."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        context = None if link.__suppress_context__ else link.__context__
        link = link.__cause__ or context
