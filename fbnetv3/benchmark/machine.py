"""The machine and software of a measurement, as stored with its results."""

from __future__ import annotations

import platform
from pathlib import Path

import torch


def describe_machine() -> dict[str, str]:
    """Returns the name of the processor (``cpu``) and the versions of ``python`` and ``torch``.

    The name is empty if the system does not tell it.
    """
    return {
        "cpu": _processor(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()
