"""The run of a search itself in its writers; its trials are recorded as children of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fbnetv3.config import CfgNode
from fbnetv3.engine.additions import check_names, make_writer, plain_config
from fbnetv3.engine.writers import StorageWriter, Writer, WriterRun
from fbnetv3.search.direction import best_score

if TYPE_CHECKING:
    from fbnetv3.search.jointnas import JointNAS
    from fbnetv3.search.trial import Event

_WITHOUT_SEARCH = ("tensorboard",)


class SearchWriters:
    """Callback of ``JointNAS.run`` that records the score of each trial in the order of their ends.

    The numbers are ``search/score``, ``search/best`` and, for trials with costs, ``search/macs``
    and the like. TensorBoard has no runs of runs: report.html has these curves.

    Args:
        cfg: Config of the search, whose WRITERS are used.
        finished: Number of trials that earlier processes finished.

    Raises:
        FBNetError: A writer is unknown or cannot start.
    """

    def __init__(self, cfg: CfgNode, finished: int = 0) -> None:
        check_names(cfg)
        folder = Path(cfg.OUTPUT_DIR)
        run = WriterRun(folder, plain_config(cfg), finished, str(folder), is_search=True)
        self._writers = [
            StorageWriter(writer, name)
            for name in cfg.WRITERS
            if name not in _WITHOUT_SEARCH and isinstance(writer := make_writer(name, run), Writer)
        ]
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
