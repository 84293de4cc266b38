"""Opens the search that a config describes, in its storage or in memory."""

from __future__ import annotations

import os

from fbnetv3.config import CfgNode
from fbnetv3.search.errors import SearchError
from fbnetv3.search.executors.base import Executor
from fbnetv3.search.fbnet.config import SearchSetup, settings_from_config
from fbnetv3.search.fbnet.datasets import final_classes
from fbnetv3.search.fbnet.identity import default_values, evaluator_config, file_hashes
from fbnetv3.search.fbnet.keys import EXTENSIBLE_KEYS, RESUMABLE_KEYS
from fbnetv3.search.fbnet.run_folder import RunFolder
from fbnetv3.search.fbnet.run_report import classes_line
from fbnetv3.search.fbnet.tasks import latency_lines, refusal_lines, statistics_of
from fbnetv3.search.jointnas import JointNAS
from fbnetv3.search.storage.database import require_study
from fbnetv3.search.storage.earlier_trials import StoredStudy


def setup_from_config(cfg: CfgNode, folder: RunFolder) -> SearchSetup:
    """Returns the config and space of a search, which must agree with a search in the folder.

    Raises:
        FBNetError: The config is invalid, a file or data set that it names cannot be read, or the
            folder holds a search with another config, other files or other imported code.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.OUTPUT_DIR = os.fspath(folder.path)
    cfg.SEARCH.FINAL_CLASSES = _final_classes(cfg, folder)
    setup = SearchSetup(cfg)
    changeable = (*RESUMABLE_KEYS, *EXTENSIBLE_KEYS)
    folder.check_config(setup.cfg.dump(), changeable, default_values())
    folder.check_files(file_hashes(setup.cfg))
    folder.check_code()
    return setup


def _final_classes(cfg: CfgNode, folder: RunFolder) -> int:
    """Returns SEARCH.FINAL_CLASSES or, if it is 0, the value in the folder's config.

    The value is 0 if that config, of an earlier version of fbnetv3, lacks the key. For a new
    folder, :func:`~fbnetv3.search.fbnet.datasets.final_classes` determines the value.
    """
    if cfg.SEARCH.FINAL_CLASSES or not folder.config.is_file():
        return final_classes(cfg)
    return int(folder.stored_config().get("SEARCH.FINAL_CLASSES", 0))


def build_search(
    setup: SearchSetup,
    executor: Executor | None = None,
    *,
    read_only: bool = False,
    in_memory: bool = False,
) -> JointNAS:
    """Returns the search that a config describes, on SEARCH.STORAGE or its folder's database.

    Args:
        setup: Config and space of the search.
        executor: Executor that runs the trainings; None: they run in this process.
        read_only: Whether to write nothing to the storage, which may be untrusted.
        in_memory: Whether the storage is not opened, and the trials are kept in memory.

    Raises:
        FBNetError: A value of the config is invalid, or the storage holds another search.
    """
    cfg = setup.cfg
    return JointNAS(
        setup.space.space,
        settings_from_config(cfg),
        statistics=statistics_of(setup),
        warm_start=_warm_start(cfg),
        executor=executor,
        storage=None if in_memory else storage_url(cfg),
        study=cfg.SEARCH.STUDY,
        evaluator_config=evaluator_config(setup),
        read_only=read_only,
        stop_after_failures=cfg.SEARCH.STOP_AFTER_FAILURES,
    )


def _warm_start(cfg: CfgNode) -> str | StoredStudy | None:
    """Returns the source of the warm start; None: there is none.

    Raises:
        SearchError: SEARCH.WARM_START_STUDY is set, but SEARCH.WARM_START is neither a URL nor a
            folder.
    """
    source, study = cfg.SEARCH.WARM_START, cfg.SEARCH.WARM_START_STUDY
    if not study:
        return source or None
    if not ("://" in source or os.path.isdir(source)):
        raise SearchError(
            f"SEARCH.WARM_START_STUDY={study!r} needs a SEARCH.WARM_START with studies: the folder "
            "of a run, or the URL of a storage"
        )
    return StoredStudy(source, study)


def open_search(setup: SearchSetup) -> JointNAS:
    """Returns the search of a run, for reading only.

    Raises:
        FBNetError: The storage cannot be read, or does not hold the search.
    """
    require_study(storage_url(setup.cfg), setup.cfg.SEARCH.STUDY)
    return build_search(setup, read_only=True)


def storage_url(cfg: CfgNode) -> str:
    """Returns SEARCH.STORAGE, or the URL of the database in OUTPUT_DIR."""
    return str(cfg.SEARCH.STORAGE or RunFolder(cfg.OUTPUT_DIR).storage)


def plan_lines(setup: SearchSetup, search: JointNAS) -> list[str]:
    """Returns the lines that a search prints before it trains.

    They are about the space, the pool, the warm start, the data, the costs, the ranges of the
    constrained statistics and the pre-trained encoder.
    """
    plan, cfg = search.plan, setup.cfg
    lines = [*setup.space.size_lines(), f"pool: {len(plan.pool)} candidates"]
    if search.warm_start.source:
        lines.append(str(search.warm_start))
    if not cfg.SEARCH.HOLD_OUT:
        lines.append(
            f"candidates are scored on DATASETS.TEST ({', '.join(cfg.DATASETS.TEST)}), so the "
            "winner's score there is optimistic; SEARCH.HOLD_OUT N scores them on N training images"
        )
    lines += filter(None, [classes_line(cfg, search)])
    lines += [*refusal_lines(setup), *latency_lines(setup)]
    for name, reach in plan.reach.items():
        lines.append(
            f"{name}: the space reaches {reach.low:.4g} to {reach.high:.4g}; "
            f"{reach.acceptance:.1%} of it meets the constraint"
        )
    for name, value in plan.pretrained.correlation.items():
        lines.append(
            f"encoder pre-trained on {name}: correlation {value:.4f} on the held-out 20% of the "
            "pool"
        )
    return lines
