"""Core ML packages for Apple devices. Linux can write them with coremltools, but not run them."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import torch

from fbnetv3.export.job import INPUT, OUTPUT, Job, missing_packages


def problem() -> str:
    """Returns why the format cannot be used, or an empty string."""
    return missing_packages("coremltools", extra="coreml")


def write(job: Job, path: Path) -> None:
    """Writes a package (a folder) for batches of one image, with float32 computation."""
    # coremltools warns of versions of torch with which it was not tested
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    import coremltools

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(job.network, job.example[:1], check_trace=False)
        package = coremltools.convert(
            traced,
            inputs=[coremltools.TensorType(name=INPUT, shape=tuple(job.example[:1].shape))],
            outputs=[coremltools.TensorType(name=OUTPUT)],
            compute_precision=coremltools.precision.FLOAT32,
            minimum_deployment_target=coremltools.target.iOS16,
        )
    package.user_defined_metadata.update(job.metadata)
    package.save(str(path))
