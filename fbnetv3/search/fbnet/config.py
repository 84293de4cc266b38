"""What a search's config describes: its space, settings and executor."""

from __future__ import annotations

import math
import os
import threading
from functools import cached_property
from typing import Any

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from fbnetv3.arch.library_names import DEFAULT_RESOLUTION
from fbnetv3.config import CfgNode, get_cfg, get_value
from fbnetv3.plain_yaml import parse_mapping
from fbnetv3.registries import EXECUTORS, LATENCY
from fbnetv3.search.acquisition.fine import EvolutionSettings
from fbnetv3.search.direction import MINIMIZE
from fbnetv3.search.errors import SearchError
from fbnetv3.search.executors.base import Executor, InProcess
from fbnetv3.search.executors.local import LocalWorkers
from fbnetv3.search.fbnet.bounds import budgets_from_config, constraints_from_config
from fbnetv3.search.fbnet.keys import AUTO_KEYS, get_search_cfg
from fbnetv3.search.fbnet.mirror import is_uri
from fbnetv3.search.fbnet.placement import AUTO, placement_from_config
from fbnetv3.search.fbnet.rungs import rungs_from_config
from fbnetv3.search.fbnet.space_kinds import open_space
from fbnetv3.search.fbnet.table_space import TableSpace
from fbnetv3.search.objectives import ONE_SCORE, name_of
from fbnetv3.search.settings import SearchSettings
from fbnetv3.search.trial import SCORE
from fbnetv3.user_code import UserCode


def space_from_config(cfg: CfgNode) -> TableSpace:
    """Returns the space of SEARCH.SPACE, with the variables of SEARCH.FIX fixed.

    Raises:
        SearchError: The space or a fixed variable is invalid.
    """
    side = cfg.INPUT.RESOLUTION or DEFAULT_RESOLUTION
    return open_space(cfg.SEARCH.SPACE, fixed_variables(cfg), cfg.MODEL.ARCH, side)


class SearchSetup:
    """A search's config together with its space, which is built when it is first used.

    A setup is pickled as the text of its config and the imported code, without the space: a worker
    rebuilds the space from them, and equal searches give equal pickles.

    Args:
        cfg: Config of a search; it is copied, and the copy is frozen.

    Attributes:
        cfg: The frozen copy.
    """

    def __init__(self, cfg: CfgNode) -> None:
        self.cfg: CfgNode = cfg.clone()
        self.cfg.freeze()

    @cached_property
    def space(self) -> TableSpace:
        """The space of the candidates.

        Raises:
            SearchError: The space or a fixed variable is invalid.
        """
        return space_from_config(self.cfg)

    @cached_property
    def training(self) -> CfgNode:
        """The frozen training config: this config without the group SEARCH."""
        values = dict(parse_mapping(self.cfg.dump()))
        del values["SEARCH"]
        cfg = get_cfg()
        cfg.merge_from_other_cfg(values)
        cfg.freeze()
        return cfg

    def __reduce__(self) -> tuple[Any, ...]:
        # UserCode comes first: unpickling it registers the names that the config may contain
        return _setup_from_text, (UserCode(), self.cfg.dump())


def _setup_from_text(code: UserCode, text: str) -> SearchSetup:
    cfg = get_search_cfg()
    cfg.merge_from_other_cfg(parse_mapping(text))
    return SearchSetup(cfg)


HOLD_OUT_SAMPLINGS = ("stratified", "random")
"""Ways to draw the held-out images."""


def settings_from_config(cfg: CfgNode) -> SearchSettings:
    """Returns the settings of the search that a config describes.

    Raises:
        SearchError: A value is out of range or not allowed.
    """
    node = cfg.SEARCH
    _check_numbers(node)
    _check_storage("STORAGE", node.STORAGE)
    _check_storage("WARM_START", node.WARM_START if "://" in node.WARM_START else "")
    _check_direction(node)
    _check_sampling(node.HOLD_OUT_SAMPLING)
    constraints, budgets = constraints_from_config(cfg), budgets_from_config(cfg)
    _check_latency(node, [c.name for c in (*constraints, *budgets)])
    return SearchSettings(
        constraints=tuple(constraints),
        budgets=tuple(budgets),
        pool_size=node.POOL_SIZE,
        batch_size=node.BATCH_SIZE,
        first_parts=node.FIRST_PARTS or None,
        iterations=node.ITERATIONS,
        predictor=node.PREDICTOR,
        pretrain=node.PRETRAIN,
        early_stop_threshold=node.EARLY_STOP or None,
        early_stop_over=node.EARLY_STOP_OVER,
        finalists=node.FINALISTS,
        final_seeds=node.FINAL_SEEDS,
        ahead=node.AHEAD,
        rungs=rungs_from_config(cfg),
        seed=cfg.SEED,
        direction=node.DIRECTION,
        objectives=tuple(node.OBJECTIVES) or ONE_SCORE,
        evolution=EvolutionSettings(
            **{key.lower(): value for key, value in node.EVOLUTION.items()}
        ),
    )


def _check_latency(node: CfgNode, bounded: list[str]) -> None:
    """Raises a SearchError if a bound or an objective is on latencies, but there is no table."""
    if not node.LATENCY_TABLE and LATENCY in (*bounded, *_objective_names(node)):
        kind = "a constraint or budget" if LATENCY in bounded else "an objective"
        raise SearchError(
            f"{kind} on {LATENCY} needs SEARCH.LATENCY_TABLE FILE; measure one on this "
            "machine: fbnetv3-benchmark --latency-table FILE --config-file CONFIG"
        )


def _objective_names(node: CfgNode) -> list[str]:
    return [name_of(str(text)) for text in node.OBJECTIVES]


def _check_sampling(name: str) -> None:
    """Raises a SearchError if SEARCH.HOLD_OUT_SAMPLING is unknown."""
    if name not in HOLD_OUT_SAMPLINGS:
        raise SearchError(
            f"SEARCH.HOLD_OUT_SAMPLING={name!r} is unknown; allowed: "
            f"{', '.join(HOLD_OUT_SAMPLINGS)}"
        )


def _check_direction(node: CfgNode) -> None:
    """Raises a SearchError if the evaluator ``train`` does not fit the objectives or direction."""
    names = _objective_names(node)
    if names and SCORE not in names and node.EVALUATOR == "train":
        raise SearchError(
            f"SEARCH.OBJECTIVES={list(node.OBJECTIVES)} lacks 'score', the only score of "
            "SEARCH.EVALUATOR 'train'; add it, or use an evaluator of your own (--import)"
        )
    if node.DIRECTION == MINIMIZE and node.EVALUATOR == "train":
        raise SearchError(
            "SEARCH.DIRECTION='minimize' is not allowed with SEARCH.EVALUATOR 'train', whose "
            "scores are accuracies or AP; use 'maximize', or an evaluator of your own (--import)"
        )


def executor_from_config(cfg: CfgNode) -> Executor:
    """Returns the executor that SEARCH.EXECUTOR selects.

    SEARCH.THREADS and SEARCH.TIMEOUT apply to the worker processes of ``local`` and ``ray``,
    SEARCH.WORKERS to ``local``, and the group SEARCH.RAY to ``ray``. The workers of ``local`` get
    the GPUs of this machine in turn if MODEL.DEVICE is ``auto`` or ``cuda``.

    Raises:
        SearchError: The executor is unknown or not installed, or a setting is not allowed.
    """
    _check_numbers(cfg.SEARCH)
    name = cfg.SEARCH.EXECUTOR
    if name not in EXECUTORS:
        raise SearchError(f"SEARCH.EXECUTOR={name!r} is unknown; {EXECUTORS.allowed(name)}")
    executor: Executor = EXECUTORS.get(name)(cfg)
    return executor


@EXECUTORS.register("local")
def _local(cfg: CfgNode) -> Executor:
    node = cfg.SEARCH
    placement = placement_from_config(cfg)
    if placement.workers:
        timeout = node.TIMEOUT or None
        return LocalWorkers(placement.workers, placement.threads, timeout, placement.devices)
    if node.TIMEOUT:
        raise SearchError(
            f"SEARCH.TIMEOUT={node.TIMEOUT:g} needs worker processes; set "
            "SEARCH.WORKERS to auto, or to 1 or more, or SEARCH.EXECUTOR to ray"
        )
    return InProcess()


def _shared_folder(cfg: CfgNode) -> str | None:
    """Returns the folder that all workers must see; None if the candidates' files are at a URI."""
    place = cfg.SEARCH.CANDIDATES or cfg.OUTPUT_DIR
    return None if is_uri(place) else place


@EXECUTORS.register("ray")
def _ray(cfg: CfgNode) -> Executor:
    from fbnetv3.search.executors.ray import RayWorkers

    node, device = cfg.SEARCH, cfg.MODEL.DEVICE.partition(":")[0]
    # None for the device `auto`: use one GPU if the cluster has any.
    gpus = _GPUS.get(device) if node.RAY.GPUS < 0 else node.RAY.GPUS
    if device == "cuda" and gpus == 0:
        raise SearchError(
            f"SEARCH.RAY.GPUS={gpus:g} hides the GPUs that MODEL.DEVICE={cfg.MODEL.DEVICE} needs; "
            "set it above 0, or set MODEL.DEVICE to auto or cpu"
        )
    threads = placement_from_config(cfg).threads
    return RayWorkers(
        node.RAY.WORKERS or None,
        cpus=node.RAY.CPUS or _cpus_of_candidate(cfg),
        gpus=gpus,
        threads=threads,
        timeout=node.TIMEOUT or None,
        address=node.RAY.ADDRESS,
        shared=_shared_folder(cfg),
    )


def _cpus_of_candidate(cfg: CfgNode) -> int:
    """Returns the CPUs of a candidate: its threads plus its data-loader workers.

    On a cluster that this process starts, they are at most the cores of this machine, so that one
    candidate fits.
    """
    placement = placement_from_config(cfg)
    loaders = cfg.DATALOADER.NUM_WORKERS if placement.loaders is None else placement.loaders
    is_private = not (cfg.SEARCH.RAY.ADDRESS or os.environ.get("RAY_ADDRESS"))
    count: int = placement.threads + loaders
    return min(count, placement.cores) if is_private else count


_GPUS = {"cpu": 0.0, "cuda": 1.0}
"""GPUs reserved for each candidate, by MODEL.DEVICE, if SEARCH.RAY.GPUS is negative."""


def _check_numbers(node: CfgNode) -> None:
    """Raises a SearchError if a number is out of range."""
    for key, low, high in (
        ("POOL_SIZE", 1, math.inf),
        ("BATCH_SIZE", 1, node.POOL_SIZE),
        ("FIRST_PARTS", 0, node.BATCH_SIZE),
        ("ITERATIONS", 1, math.inf),
        ("FINALISTS", 0, math.inf),
        ("FINAL_SEEDS", 1, math.inf),
        ("AHEAD", 0, math.inf),
        ("EARLY_STOP", 0.0, 1.0),
        ("WORKERS", 0, math.inf),
        ("WORKERS_PER_GPU", 1, math.inf),
        ("THREADS", 1, math.inf),
        ("LOADER_WORKERS", -1, math.inf),
        ("STOP_AFTER_FAILURES", 0, math.inf),
        ("TIMEOUT", 0, math.inf),
        ("MAX_HOURS", 0, threading.TIMEOUT_MAX / 3600),  # limit of threading.Timer
        ("CLASSES", 0, math.inf),
        ("FINAL_CLASSES", 0, math.inf),
        ("HOLD_OUT", 0, math.inf),
        ("ASPECT_RATIO", 1, 100),
        ("RAY.WORKERS", 0, math.inf),
        ("RAY.CPUS", 0, math.inf),
        ("RAY.GPUS", -1, math.inf),
    ):
        value = get_value(node, key)
        if key in AUTO_KEYS and value == AUTO:
            continue
        if not low <= value <= high:
            allowed = f"{low:g} to {high:g}" if math.isfinite(high) else f"{low} or more"
            if key == "BATCH_SIZE":
                allowed += " (SEARCH.POOL_SIZE)"
            if key in AUTO_KEYS:
                allowed += f", or {AUTO}"
            raise SearchError(f"SEARCH.{key}={value!r} is out of range; allowed: {allowed}")


def _check_storage(key: str, url: str) -> None:
    """Raises a SearchError if the value of a key is not a URL, or holds a password."""
    if not url:
        return
    try:
        parsed = make_url(url)
    except ArgumentError:
        empty = "search.db in OUTPUT_DIR" if key == "STORAGE" else "no warm start"
        raise SearchError(
            f"SEARCH.{key}={url!r} is not a URL; allowed: postgresql://HOST/DATABASE, "
            f"sqlite:///FILE and the like, or '' for {empty}"
        ) from None
    if parsed.password:
        raise SearchError(
            f"SEARCH.{key}={parsed.render_as_string(hide_password=True)} holds a password, which "
            "would be written to config.yaml and to logs; put it into ~/.pgpass or PGPASSWORD"
        )


def fixed_variables(cfg: CfgNode) -> dict[str, Any]:
    """Returns SEARCH.FIX as a mapping from variable to value.

    Raises:
        SearchError: The last name has no value.
    """
    pairs = list(cfg.SEARCH.FIX)
    if len(pairs) % 2:
        raise SearchError(f"SEARCH.FIX takes pairs NAME, VALUE; {pairs[-1]!r} has no value")
    return dict(zip(pairs[0::2], pairs[1::2], strict=True))
