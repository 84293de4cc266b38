"""Which errors are faults of memory, device and data, and which are those of a candidate."""

from __future__ import annotations

import errno

import pytest
import torch
from torch.distributed import DistBackendError

from fbnetv3.data.errors import DataError
from fbnetv3.search import SearchError
from fbnetv3.search.executors.base import attempt
from fbnetv3.search.executors.device_faults import (
    DATA,
    DEVICE,
    MEMORY,
    TIME,
    failure_kind,
    find_fault,
)
from tests.search.executors.running import make_trials

_ERRORS: list[tuple[BaseException, str | None]] = [
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), MEMORY),
    (torch.AcceleratorError("CUDA error: out of memory"), MEMORY),
    (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), MEMORY),
    (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), MEMORY),
    (DistBackendError("NCCL error: unhandled cuda error\nCuda failure 2 'out of memory'"), MEMORY),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"), MEMORY),
    (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), MEMORY),
    (MemoryError(), MEMORY),
    (OSError(errno.ENOMEM, "Cannot allocate memory"), MEMORY),
    (torch.AcceleratorError("CUDA error: device-side assert triggered"), DEVICE),
    (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), DEVICE),
    (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), DEVICE),
    (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED"), DEVICE),
    (RuntimeError("CUDA error: uncorrectable ECC error encountered"), DEVICE),
    (RuntimeError("NVRM: Xid (PCI:0000:01:00): 79, GPU has fallen off the bus."), DEVICE),
    (RuntimeError("CUDA-capable device(s) is/are busy or unavailable"), DEVICE),
    (RuntimeError("No CUDA GPUs are available"), DEVICE),
    (DistBackendError("NCCL communicator was aborted on rank 0"), DEVICE),
    (DataError("cannot read /data/a.jpg: it is truncated"), DATA),
    (FileNotFoundError(errno.ENOENT, "No such file", "/data/a.jpg"), DATA),
    (ConnectionResetError("the server of the images"), DATA),
    (ValueError("CUDA out of memory"), None),  # texts of a program's own errors are no evidence
    (RuntimeError("shape '[2]' is invalid for input of size 3"), None),
    (RuntimeError("mat1 and mat2 must be on the same device"), None),
    (SearchError("no number"), None),
    (KeyError("cuda"), None),
]


@pytest.mark.parametrize(("error", "kind"), _ERRORS, ids=lambda value: repr(value)[:60])
def test_errors_are_classified_by_type_and_text(error: BaseException, kind: str | None) -> None:
    fault = find_fault(error)
    assert (fault and fault.kind) == kind


def _raise_both(first: Exception, then: Exception, *, with_cause: bool) -> None:
    try:
        raise first
    except Exception as cause:
        raise then from (cause if with_cause else None)


def _raise_in_handler(first: Exception, then: Exception) -> None:
    try:
        raise first
    except Exception:
        raise then  # noqa: B904  the context is what is tested


def test_causes_and_contexts_are_examined_and_the_first_fault_counts() -> None:
    memory = torch.OutOfMemoryError("CUDA out of memory")
    for raise_it in (
        lambda: _raise_both(memory, ValueError("training failed"), with_cause=True),
        lambda: _raise_in_handler(memory, ValueError("training failed")),
        lambda: _raise_in_handler(memory, torch.AcceleratorError("CUDA error: unknown error")),
    ):
        with pytest.raises(Exception) as raised:
            raise_it()
        fault = find_fault(raised.value)
        assert fault is not None
        assert (fault.kind, fault.error) == (MEMORY, memory)
    with pytest.raises(ValueError, match="training") as suppressed:
        _raise_both(memory, ValueError("training failed"), with_cause=False)
    assert find_fault(suppressed.value) is None


def test_an_error_that_is_its_own_cause() -> None:
    error = RuntimeError("a")
    error.__cause__ = error
    assert find_fault(error) is None


def test_the_reason_shows_the_fault_behind_another_error() -> None:
    def evaluate(trial: object) -> float:
        _raise_both(torch.OutOfMemoryError("CUDA out of memory"), ValueError("x"), with_cause=True)
        return 1.0

    (trial,) = make_trials(1)
    finished = attempt(evaluate, trial)
    assert finished.fault == MEMORY
    assert str(finished.reason).startswith("OutOfMemoryError: CUDA out of memory (")
    assert "then ValueError: x (" in str(finished.reason)


def test_the_kind_of_a_reason_survives_a_long_text() -> None:
    def evaluate(trial: object) -> float:
        raise RuntimeError("x" * 600 + " out of memory")

    (trial,) = make_trials(1)
    finished = attempt(evaluate, trial)
    assert failure_kind(finished.reason) == MEMORY


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("took longer than 8 s", TIME),
        ("took longer than 1e+05 s", TIME),
        ("its worker was ended by SIGKILL; this was the second attempt", MEMORY),
        ("MemoryError: no message (a.py:3)", MEMORY),
        ("OutOfMemoryError: CUDA out of memory. (a.py:3); this was the second attempt", MEMORY),
        ("its worker was ended by SIGSEGV; this was the second attempt", None),
        ("AcceleratorError: CUDA error: device-side assert triggered", None),
        ("ValueError: it took longer than usual", None),
        ("the score is nan", None),
        (None, None),
    ],
)
def test_failures_that_follow_from_the_size_of_a_candidate(
    reason: str | None, kind: str | None
) -> None:
    assert failure_kind(reason) == kind
