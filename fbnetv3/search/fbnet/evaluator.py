"""Trains candidates of a search and scores them."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fbnetv3.config import CfgNode
from fbnetv3.config.archs import is_detector
from fbnetv3.io import atomic_write, read_text, refuse_links_out
from fbnetv3.registries import EVALUATORS
from fbnetv3.search.errors import SearchError
from fbnetv3.search.executors.base import release_gpu_memory
from fbnetv3.search.fbnet.config import SearchSetup
from fbnetv3.search.fbnet.datasets import chance_score, counts_iterations
from fbnetv3.search.fbnet.mirror import Mirror, is_uri
from fbnetv3.search.fbnet.trainings import candidate_training
from fbnetv3.search.trial import Trial
from fbnetv3.user_code import CallableWithUserCode

_log = logging.getLogger(__name__)
_SCORES = ("bbox/AP", "val/mAP", "val/top1")
"""Names of the tasks' scores among the metrics; each task has one of these."""
_CHECKPOINTS, _WEIGHTS = "checkpoint_*.pt", "*.safetensors"


@dataclass(frozen=True)
class TrainEvaluator:
    """Trains a candidate and returns its score in percent.

    The score is the top-1 accuracy, the mean average precision (mAP) if images have several labels,
    or a detector's AP.

    Each candidate has a folder, and with several seeds one for each seed. It holds a checkpoint
    from which an interrupted training resumes, the scores by epoch or iteration
    (:func:`steps_per_epoch`) in ``scores.json``, and the final score in ``result.json``. With EMA,
    the averaged weights are scored. After a training that ends at an entry of SEARCH.RUNGS below
    the last one, the checkpoint is kept: if the candidate is trained on, it resumes from there, and
    the weights equal those of an uninterrupted training. Other checkpoints are deleted at the end.

    Attributes:
        setup: Config and space of the search.
        folder: Parent of the candidates' folders: a path, or a URI (see :class:`Mirror`).
    """

    setup: SearchSetup
    folder: str

    @property
    def chance_advice(self) -> str:
        """What to change if no candidate scores above :attr:`chance_score`."""
        fewer = ", on fewer classes (SEARCH.CLASSES)"
        return (
            "in a new OUTPUT_DIR, train candidates for longer (SOLVER.MAX_EPOCHS), with a higher "
            "learning rate (SOLVER.BASE_LR, or its range in SEARCH.SPACE)"
            f"{'' if self._is_detector else fewer}, or score them on more images "
            "(SEARCH.HOLD_OUT), which lowers the score of chance"
        )

    @property
    def _is_detector(self) -> bool:
        return is_detector(self.setup.cfg)

    @cached_property
    def chance_score(self) -> float:
        """The highest score that a candidate reaches without learning; see JointNAS.run."""
        return chance_score(self.setup.cfg)

    def __call__(self, trial: Trial) -> float:
        """Trains and scores a trial, or returns the score of a training that has finished.

        Args:
            trial: Candidate to train; the score of each evaluation is reported to it.

        Raises:
            FBNetError: The candidate cannot be trained, or a loss is not finite.
            StorageUnavailableError: The URI of the candidates' folders cannot be read.
            KeyboardInterrupt: A signal has stopped the training.
        """
        if not is_uri(self.folder):
            return self._score(trial, Path(self.folder) / trial.name, _keep_nothing)
        with Mirror(self.folder).folder(trial.name) as (folder, copy):
            return self._score(trial, folder, copy.try_push)

    def _score(self, trial: Trial, folder: Path, keep: Callable[[], None]) -> float:
        """Trains in a folder, unless it holds the trial's final score, which is returned then.

        ``keep`` is called whenever the files of the folder should be copied.
        """
        finished, reports = _read_progress(folder, trial)
        for epoch, score in reports.items():
            trial.report(epoch, score)
        if finished is not None:
            return finished
        cfg = candidate_training(self.setup, trial.config, folder, trial.replicate)
        keys = [key + "_ema" * cfg.MODEL_EMA.ENABLED for key in _SCORES]
        steps = steps_per_epoch(cfg)

        def on_eval(epochs: float, scores: dict[str, float]) -> None:
            step = round(epochs * steps)
            reports[step] = score = next(scores[key] for key in keys if key in scores)
            _write_json(folder / "scores.json", reports)
            trial.report(step, score)

        stop_after = None if trial.max_epochs is None else trial.max_epochs / steps
        search = str(self.setup.cfg.OUTPUT_DIR)
        _train(cfg, folder / "log.txt", stop_after, on_eval, lambda path: keep(), search)
        score = reports[max(reports)]
        _write_json(folder / "result.json", {"score": score, "max_epochs": trial.max_epochs})
        keeps_weights, rungs = self.setup.cfg.SEARCH.KEEP_WEIGHTS, self.setup.cfg.SEARCH.RUNGS
        may_go_on = trial.max_epochs is not None and trial.max_epochs in rungs[:-1]
        checkpoints = () if may_go_on else (_CHECKPOINTS,)
        _remove(folder, *checkpoints, *(() if keeps_weights else (_WEIGHTS,)))
        keep()
        return score


@EVALUATORS.register("train")
def _train_evaluator(setup: SearchSetup, folder: str) -> TrainEvaluator:
    return TrainEvaluator(setup, folder)


def evaluator_from_config(setup: SearchSetup, folder: str) -> Callable[[Trial], float]:
    """Returns the evaluator that SEARCH.EVALUATOR names.

    Args:
        setup: Config and space of the search.
        folder: Parent of the candidates' folders: a path, or a URI.

    Raises:
        SearchError: The name is unknown, or the function registered under it returns no function.
    """
    name = setup.cfg.SEARCH.EVALUATOR
    if name not in EVALUATORS:
        raise SearchError(f"SEARCH.EVALUATOR={name!r} is unknown; {EVALUATORS.allowed(name)}")
    evaluate = EVALUATORS.get(name)(setup, folder)
    if not callable(evaluate):
        raise SearchError(
            f"SEARCH.EVALUATOR={name} returned a {type(evaluate).__name__}; allowed: a function of "
            "a trial that returns its score"
        )
    # the package's own evaluator holds a SearchSetup, which carries the imported code itself
    return evaluate if isinstance(evaluate, TrainEvaluator) else CallableWithUserCode(evaluate)


def steps_per_epoch(cfg: CfgNode) -> int:
    """Returns the number of steps per epoch; the scores of a training are recorded by step.

    For a detector that is not scored after whole epochs, a step is an iteration (see
    :func:`~fbnetv3.search.fbnet.datasets.counts_iterations`). Otherwise, a step is an epoch, and
    the number is 1.
    """
    if not counts_iterations(cfg):
        return 1
    # imported here, since searches over classifiers need no detectors
    from fbnetv3.search.fbnet.detectors import iterations_per_epoch

    return iterations_per_epoch(cfg)


def _keep_nothing() -> None:
    """Does nothing: the files of a local folder need no copy."""


def _read_progress(folder: Path, trial: Trial) -> tuple[float | None, dict[int, float]]:
    """Returns the final score of a training, and its scores so far by epoch or iteration.

    The final score is None if the training has not finished the trial's epochs. If it has finished
    more (SEARCH.RUNGS), the final score is the one recorded after the trial's epochs, and later
    scores are left out.
    """
    result, scores = _read_json(folder / "result.json"), _read_json(folder / "scores.json")
    if scores is None:
        # Scores before the checkpoint are lost, and a resumed training would not report them again:
        # the training starts from scratch.
        _remove(folder, _CHECKPOINTS)
    reports = {int(epoch): score for epoch, score in (scores or {}).items() if epoch.isdecimal()}
    if not result or not reports:
        return None, reports
    trained, epochs = result.get("max_epochs", -1), trial.max_epochs
    if trained == epochs:
        return result.get("score"), reports
    if epochs is not None and isinstance(trained, int) and epochs < trained and epochs in reports:
        return reports[epochs], {e: score for e, score in reports.items() if e <= epochs}
    return None, reports


def _train(
    cfg: CfgNode, log: Path, max_epochs: float | None, on_eval: Any, on_save: Any, search: str
) -> None:
    """Trains with standard error redirected to a log.

    Raises:
        KeyboardInterrupt: A signal has stopped the training.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    refuse_links_out(log.parent, (log.name,))
    with log.open("a", encoding="utf-8") as file, contextlib.redirect_stderr(file):
        # Imported here so that warnings at import go to the candidate's log, too.
        from fbnetv3.engine.additions import Additions
        from fbnetv3.engine.checkpoint_files import is_surely_damaged
        from fbnetv3.engine.errors import StoppedError
        from fbnetv3.training import train
        from fbnetv3.weights.run_folder import is_checkpoint

        # Without a checkpoint, the candidate is trained again from scratch. One that cannot be read
        # for now stays, and ends the trial with an error.
        checkpoints = [p for p in log.parent.glob(_CHECKPOINTS) if is_checkpoint(p.name)]
        if all(map(is_surely_damaged, checkpoints)):
            _remove(log.parent, _CHECKPOINTS, _WEIGHTS)
        try:
            train(
                cfg,
                resume=True,
                stop_after=max_epochs,
                on_eval=on_eval,
                on_save=on_save,
                pictures=False,
                raw_scores=False,
                additions=Additions(search=search),
            )
        except StoppedError as error:
            raise KeyboardInterrupt from error
        finally:
            release_gpu_memory()  # another worker may share the GPU


def _read_json(path: Path) -> dict[str, Any] | None:
    """Returns the object in a json file: {} if there is no file, None if it cannot be read."""
    if not path.exists():
        return {}
    try:
        content: object = json.loads(read_text(path, "record"))
    except (ValueError, OSError, RecursionError):
        content = None
    if isinstance(content, dict):
        return content
    _log.warning("%s is damaged and is ignored: its candidate is trained again", path)
    return None


def _remove(folder: Path, *patterns: str) -> None:
    for pattern in patterns:
        for path in folder.glob(pattern):
            path.unlink()


def _write_json(path: Path, values: Mapping[Any, Any]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(values), encoding="utf-8")
