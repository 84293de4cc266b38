"""Copies batches from the CPU to the training device."""

from __future__ import annotations

from collections.abc import Sequence

import torch


class BatchToDevice:
    """A function that copies the tensors of a batch to a device.

    On CUDA the copy runs in a stream of its own. A batch in pinned memory is copied while the
    device computes the previous step. The step that uses the copy waits for it.

    Args:
        device: Device to copy to.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: torch.cuda.Stream | None = None

    def __call__(self, batch: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Returns the tensors on the device."""
        if self._device.type != "cuda":
            return [tensor.to(self._device) for tensor in batch]
        if self._stream is None:
            self._stream = torch.cuda.Stream(self._device)
        with torch.cuda.stream(self._stream):
            copies = [tensor.to(self._device, non_blocking=True) for tensor in batch]
        current = torch.cuda.current_stream(self._device)
        current.wait_stream(self._stream)
        for tensor in copies:
            tensor.record_stream(current)  # its memory is not reused before the step ends
        return copies
