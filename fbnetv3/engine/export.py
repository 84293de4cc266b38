"""The weights of a finished run, for use elsewhere."""

from __future__ import annotations

from fbnetv3.engine.checkpoint import export_weights
from fbnetv3.engine.ema import ModelEMA, unwrap
from fbnetv3.engine.run import Run


def export_run(run: Run, ema: ModelEMA | None) -> None:
    """Writes model.safetensors and model_ema.safetensors.

    They tell their architecture, classes and preprocessing, so that ``tools/predict.py``,
    MODEL.WEIGHTS and other programs need nothing else.

    Raises:
        WriteError: no space or permission.
    """
    weights = unwrap(run.model).state_dict()
    export_weights(weights, run.folder / "model.safetensors", run.metadata)
    if ema is not None:
        export_weights(ema.model_state_dict(), run.folder / "model_ema.safetensors", run.metadata)
