"""Exporting the weights of a finished training."""

from __future__ import annotations

from fbnetv3.engine.checkpoint import export_weights
from fbnetv3.engine.ema import ModelEMA, unwrap
from fbnetv3.engine.experiment import Experiment


def export_model(experiment: Experiment, ema: ModelEMA | None) -> None:
    """Writes model.safetensors and, if an EMA is kept, model_ema.safetensors.

    Both files hold the architecture, class names and preprocessing as metadata, so that
    ``fbnetv3-predict``, MODEL.WEIGHTS and other programs need no further file, except for the code
    of a registered network (``--import``).

    Args:
        experiment: The finished training.
        ema: Moving average of the model's weights; None if there is none.

    Raises:
        WriteError: The disk is full or the folder cannot be written to.
    """
    folder, metadata = experiment.folder, experiment.metadata
    export_weights(unwrap(experiment.model).state_dict(), folder / "model.safetensors", metadata)
    if ema is not None:
        export_weights(ema.model_state_dict(), folder / "model_ema.safetensors", metadata)
