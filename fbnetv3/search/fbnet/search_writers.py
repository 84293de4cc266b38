"""Records a search as one run in each experiment tracker of WRITERS, beside the runs of its trials.

In MLflow, the trials' runs are children of the search's run; in Weights & Biases, they share its
group; a csv file has no such relation.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fbnetv3.config import CfgNode
from fbnetv3.engine.additions import check_names, make_writer, plain_config
from fbnetv3.engine.writers import StorageWriter, Writer, WriterRun
from fbnetv3.search.direction import best_score

if TYPE_CHECKING:
    from fbnetv3.search.jointnas import JointNAS
    from fbnetv3.search.trial import Event

_log = logging.getLogger("fbnetv3")
_LEFT_OUT = ("tensorboard",)
"""Writers that record neither a search nor its trials: event files of TensorBoard do not nest."""


class SearchWriters:
    """Callback of ``JointNAS.run`` that records each score, in the order in which trials finish.

    The numbers are ``search/score``, ``search/best`` and, for trials with costs, ``search/macs``
    and the like. TensorBoard is left out, since it has no nested runs; report.html shows the best
    score so far. Other writers of detectron2 (``EventWriter``) are left out with a warning, since
    they record a training's storage of events, which a search does not have.

    Args:
        cfg: Config of the search, whose WRITERS are used.
        finished: Number of trials that earlier processes finished.

    Raises:
        FBNetError: A writer is unknown or cannot start.
    """

    def __init__(self, cfg: CfgNode, finished: int = 0) -> None:
        check_names(cfg)
        folder = Path(cfg.OUTPUT_DIR)
        # Finished trials are numbered from 1; this process records from ``finished + 1`` on.
        run = WriterRun(folder, plain_config(cfg), finished + 1, str(folder), is_search=True)
        writers = {n: make_writer(n, run) for n in cfg.WRITERS if n not in _LEFT_OUT}
        self._writers = [StorageWriter(w, n) for n, w in writers.items() if isinstance(w, Writer)]
        for name, writer in writers.items():
            if not isinstance(writer, Writer):
                writer.close()
                _log.warning("WRITERS: %s records trainings only, not the search itself", name)
        self._count, self._direction = finished, str(cfg.SEARCH.DIRECTION)

    def __call__(self, search: JointNAS, event: Event) -> None:
        """Records a trial that has ended with a score."""
        trial: Any = event.trial
        if event.kind != "finish" or not self._writers:
            return
        self._count += 1
        if trial.score is None:
            return
        scores = [t.score for t in search.trials if t.score is not None]
        values = {
            "search/score": trial.score,
            "search/best": best_score([trial.score, *scores], self._direction),
        }
        values |= {f"search/{name}": value for name, value in trial.statistics.items()}
        for writer in self._writers:
            writer.log({name: float(value) for name, value in values.items()}, self._count)

    def close(self) -> None:
        """Ends the recording."""
        for writer in self._writers:
            writer.close()
