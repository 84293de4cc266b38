"""The keys of a search in a config: the group SEARCH, added to the training's tree."""

from __future__ import annotations

import hashlib
import math
import re
from pathlib import Path
from typing import Any

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from fbnetv3.plain_yaml import parse_mapping
from fbnetv3.search.acquisition.fine import EvolutionSettings
from fbnetv3.search.errors import SearchError
from fbnetv3.search.executors.base import Executor, InProcess
from fbnetv3.search.executors.local import LocalWorkers
from fbnetv3.search.fbnet.mirror import is_uri
from fbnetv3.search.fbnet.run_folder import leaves
from fbnetv3.search.settings import SearchSettings
from fbnetv3.search.space.constraints import Constraint

KEYS: dict[str, tuple[Any, str]] = {
    "SPACE": ("fbnetv3", "a packaged space (fbnetv3, nano, autotrain), or the path of a yaml"),
    "FIX": ([], "variables that keep one value: [NAME, VALUE, NAME, VALUE, ...]"),
    "CONSTRAINTS": ([], "such as '4e8 <= macs <= 8e8', 'params <= 5e6'; the first one is binned"),
    "BUDGETS": (
        [],
        "such as 'macs <= 4e8', 'macs <= 6e8': a winner each; batches are divided among them",
    ),
    "LATENCY_TABLE": ("", "json of tools/benchmark.py --latency-table, for 'latency_ms <= 5'"),
    "POOL_SIZE": (20_000, "candidates in the quasi Monte-Carlo pool (n)"),
    "BATCH_SIZE": (48, "candidates trained per iteration (m)"),
    "ITERATIONS": (4, "batches of stage 1 (T)"),
    "PREDICTOR": (
        "default",
        "'default' (networks and a Gaussian process), 'paper', or 'random': the baseline",
    ),
    "PRETRAIN": (True, "train the architecture encoder on statistics first"),
    "EARLY_STOP": (0.92, "rank correlation from which on candidates stop early; 0: never"),
    "FINALISTS": (8, "candidates of stage 2 that are trained before a winner is named"),
    "AHEAD": (0, "trials that may still run when the next batch is proposed; 0: none"),
    "WARM_START": ("", "csv of an earlier search: a column a variable, and 'score'"),
    "STORAGE": ("", "Optuna URL, as postgresql://HOST/DATABASE; empty: search.db in OUTPUT_DIR"),
    "STUDY": ("jointnas", "name of the search in the storage, which may hold many"),
    "EXECUTOR": ("local", "where candidates train: 'local' (this machine), or 'ray' (a cluster)"),
    "WORKERS": (0, "worker processes of 'local'; 0: train in this process"),
    "THREADS": (1, "threads of each worker"),
    "TIMEOUT": (0.0, "seconds that a candidate may take, else it fails; needs workers; 0: any"),
    "CANDIDATES": (
        "",
        "keeps the candidates: a folder, or as s3://BUCKET/RUN; empty: in OUTPUT_DIR",
    ),
    "CLASSES": (0, "train on so many classes, drawn at random; 0: all"),
    "HOLD_OUT": (0, "score on so many training images held back; 0: on DATASETS.TEST"),
    "KEEP_WEIGHTS": (False, "keep the weights of every candidate, not its scores only"),
    "FINAL": ([], "KEY VALUE pairs that the winners' configs change, such as a longer schedule"),
    "RAY.ADDRESS": (
        "",
        "of a cluster, as 10.0.0.1:6379, not in a file; '': RAY_ADDRESS, else one of our own",
    ),
    "RAY.WORKERS": (0, "at most so many candidates at a time; 0: as many as there is room for"),
    "RAY.CPUS": (0.0, "CPUs of a candidate; 0: as many as THREADS"),
    "RAY.GPUS": (
        -1.0,
        "GPUs of a candidate, 0.25: four share one; -1: 1 if MODEL.DEVICE may use it",
    ),
    "EVOLUTION.BEST": (50, "best trained candidates in stage 2's first generation (p)"),
    "EVOLUTION.RANDOM": (50, "random ones in it (q)"),
    "EVOLUTION.CHILDREN": (12, "children of each candidate per generation"),
    "EVOLUTION.TOP": (40, "candidates that stay (K)"),
    "EVOLUTION.EPSILON": (1e-6, "stage 2 ends when the best score gains no more than this ..."),
    "EVOLUTION.PATIENCE": (1, "... in so many generations in a row"),
}
# How a search runs, not what it finds: these may differ when one goes on.
MAY_CHANGE = (
    "OUTPUT_DIR",
    "SEARCH.EXECUTOR",
    "SEARCH.WORKERS",
    "SEARCH.THREADS",
    "SEARCH.TIMEOUT",
    "SEARCH.CANDIDATES",
    "SEARCH.RAY.ADDRESS",
    "SEARCH.RAY.WORKERS",
    "SEARCH.RAY.CPUS",
    "SEARCH.RAY.GPUS",
    "SEARCH.KEEP_WEIGHTS",
)

# Files whose content decides what a search finds; a warm start's scores are in the storage.
_FILES = ("SEARCH.SPACE", "SEARCH.LATENCY_TABLE", "MODEL.ARCH")


def add_search_config(cfg: Any) -> Any:
    """Adds the group SEARCH with its defaults to a config tree, and returns the tree."""
    node = type(cfg)
    cfg.set_new_allowed(True)
    cfg.SEARCH = node()
    cfg.set_new_allowed(False)
    cfg.SEARCH.set_new_allowed(True)
    for full_key, (value, _) in KEYS.items():
        group, _, key = full_key.rpartition(".")
        if group and group not in cfg.SEARCH:
            cfg.SEARCH[group] = node()
            cfg.SEARCH[group].set_new_allowed(True)
        (cfg.SEARCH[group] if group else cfg.SEARCH)[key] = value
    cfg.SEARCH.set_new_allowed(False)  # its groups, too
    return cfg


_NUMBER = r"([-+]?[\d.]+(?:[eE][-+]?\d+)?)"
_FORMS = (
    (re.compile(rf"{_NUMBER} *<= *(\w+) *<= *{_NUMBER}"), ("lower", "name", "upper")),
    (re.compile(rf"(\w+) *<= *{_NUMBER}"), ("name", "upper")),
    (re.compile(rf"(\w+) *>= *{_NUMBER}"), ("name", "lower")),
)


def parse_constraint(text: str) -> Constraint:
    """Reads ``4e8 <= macs <= 8e8``, ``macs <= 8e8`` or ``macs >= 4e8``.

    Raises:
        SearchError: it is none of these.
    """
    for form, fields in _FORMS:
        match = form.fullmatch(str(text).strip())
        if match is None:
            continue
        found: dict[str, Any] = dict(zip(fields, match.groups(), strict=True))
        try:
            bounds = {key: float(found[key]) for key in found if key != "name"}
        except ValueError:
            break
        return Constraint(found["name"], **bounds)
    raise SearchError(
        f"constraint {text!r} is not understood; write 'macs <= 8e8', 'macs >= 4e8' or "
        "'4e8 <= macs <= 8e8'"
    )


def parse_budget(text: str) -> Constraint:
    """Reads ``macs <= 4e8``: what a winner may cost at most.

    Raises:
        SearchError: it is not understood, or has no upper bound.
    """
    found = parse_constraint(text)
    if found.upper is None:
        raise SearchError(f"SEARCH.BUDGETS: {text!r} has no upper bound; write 'macs <= 4e8'")
    return found


def settings_from_config(cfg: Any) -> SearchSettings:
    """Returns the settings of the search that a config describes.

    Raises:
        SearchError: A value is out of range or not understood.
    """
    node = cfg.SEARCH
    _check_numbers(node)
    _check_storage(node.STORAGE)
    constraints = tuple(parse_constraint(text) for text in node.CONSTRAINTS)
    budgets = tuple(parse_budget(text) for text in node.BUDGETS)
    if not node.LATENCY_TABLE and any(c.name == "latency_ms" for c in (*constraints, *budgets)):
        raise SearchError(
            "a constraint on latency_ms needs SEARCH.LATENCY_TABLE FILE; measure one on this "
            "machine: python tools/benchmark.py --latency-table FILE --config-file CONFIG"
        )
    return SearchSettings(
        constraints=constraints,
        budgets=budgets,
        pool_size=node.POOL_SIZE,
        batch_size=node.BATCH_SIZE,
        iterations=node.ITERATIONS,
        predictor=node.PREDICTOR,
        pretrain=node.PRETRAIN,
        early_stop_threshold=node.EARLY_STOP or None,
        finalists=node.FINALISTS,
        ahead=node.AHEAD,
        seed=cfg.SEED,
        evolution=EvolutionSettings(
            **{key.lower(): value for key, value in node.EVOLUTION.items()}
        ),
    )


def executor_from_config(cfg: Any) -> Executor:
    """Returns what SEARCH.EXECUTOR names, set up by SEARCH.WORKERS and THREADS, or SEARCH.RAY.

    Raises:
        SearchError: there is no such executor, it is not installed, or it can't be so.
    """
    _check_numbers(cfg.SEARCH)
    made = _EXECUTORS.get(cfg.SEARCH.EXECUTOR)
    if made is None:
        raise SearchError(
            f"SEARCH.EXECUTOR={cfg.SEARCH.EXECUTOR!r} is none; allowed: {', '.join(_EXECUTORS)}"
        )
    return made(cfg)


def _local(cfg: Any) -> Executor:
    node = cfg.SEARCH
    if node.WORKERS:
        return LocalWorkers(node.WORKERS, node.THREADS, node.TIMEOUT or None)
    if node.TIMEOUT:
        raise SearchError(
            f"SEARCH.TIMEOUT={node.TIMEOUT:g} needs a worker that can be ended; set SEARCH.WORKERS "
            "1 or more, or SEARCH.EXECUTOR ray"
        )
    return InProcess()


def _shared(cfg: Any) -> str | None:
    """Returns the folder that all workers must see; None: they share a URI."""
    place = cfg.SEARCH.CANDIDATES or cfg.OUTPUT_DIR
    return None if is_uri(place) else place


def _ray(cfg: Any) -> Executor:
    from fbnetv3.search.executors.ray import RayWorkers

    node, device = cfg.SEARCH, cfg.MODEL.DEVICE.partition(":")[0]
    # auto takes a GPU where there is one: known when the cluster is
    gpus = _GPUS.get(device) if node.RAY.GPUS < 0 else node.RAY.GPUS
    if device == "cuda" and gpus == 0:
        raise SearchError(
            f"SEARCH.RAY.GPUS={gpus:g} hides the GPUs that MODEL.DEVICE={cfg.MODEL.DEVICE} asks "
            "for; set it above 0, or MODEL.DEVICE auto or cpu"
        )
    return RayWorkers(
        node.RAY.WORKERS or None,
        cpus=node.RAY.CPUS or node.THREADS,
        gpus=gpus,
        threads=node.THREADS,
        timeout=node.TIMEOUT or None,
        address=node.RAY.ADDRESS,
        shared=_shared(cfg),
    )


_EXECUTORS = {"local": _local, "ray": _ray}
_GPUS = {"cpu": 0.0, "cuda": 1.0}


def _check_numbers(node: Any) -> None:
    """Raises a SearchError where a number can't be meant."""
    for key, low, high in (
        ("POOL_SIZE", 1, math.inf),
        ("BATCH_SIZE", 1, node.POOL_SIZE),
        ("ITERATIONS", 1, math.inf),
        ("FINALISTS", 0, math.inf),
        ("AHEAD", 0, math.inf),
        ("EARLY_STOP", 0.0, 1.0),
        ("WORKERS", 0, math.inf),
        ("THREADS", 1, math.inf),
        ("TIMEOUT", 0, math.inf),
        ("CLASSES", 0, math.inf),
        ("HOLD_OUT", 0, math.inf),
        ("RAY.WORKERS", 0, math.inf),
        ("RAY.CPUS", 0, math.inf),
        ("RAY.GPUS", -1, math.inf),
    ):
        group, _, name = key.rpartition(".")
        value = (node[group] if group else node)[name]
        if not low <= value <= high:
            allowed = f"{low:g} to {high:g}" if math.isfinite(high) else f"{low} or more"
            if key == "BATCH_SIZE":
                allowed += " (SEARCH.POOL_SIZE)"
            raise SearchError(f"SEARCH.{key}={value!r} is out of range; allowed: {allowed}")


def _check_storage(url: str) -> None:
    """Raises a SearchError where config.yaml would give a password away, or for no URL."""
    if not url:
        return
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise SearchError(
            f"SEARCH.STORAGE={url!r} is no URL; allowed: such as postgresql://HOST/DATABASE or "
            "sqlite:///FILE, or '' for search.db in OUTPUT_DIR"
        ) from None
    if parsed.password:
        raise SearchError(
            f"SEARCH.STORAGE={parsed.render_as_string(hide_password=True)} holds a password, which "
            "config.yaml and logs would keep; put it into ~/.pgpass or PGPASSWORD"
        )


def file_hashes(cfg: Any) -> dict[str, str]:
    """Returns the sha256 of each file that a search reads, by the key that names it."""
    found = {}
    for full_key in _FILES:
        group, key = full_key.split(".")
        path = Path(cfg[group][key])
        if path.is_file():
            found[full_key] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def identity(cfg: Any) -> dict[str, Any]:
    """Returns what a search's scores follow from: its config but for MAY_CHANGE, and its files."""
    found = {k: v for k, v in leaves(parse_mapping(cfg.dump())).items() if k not in MAY_CHANGE}
    return found | {f"sha256 of {key}": value for key, value in file_hashes(cfg).items()}


def fixed_variables(cfg: Any) -> dict[str, Any]:
    """Returns SEARCH.FIX as a mapping.

    Raises:
        SearchError: a name has no value.
    """
    pairs = list(cfg.SEARCH.FIX)
    if len(pairs) % 2:
        raise SearchError(f"SEARCH.FIX takes pairs NAME, VALUE; {pairs[-1]!r} has no value")
    return dict(zip(pairs[0::2], pairs[1::2], strict=True))
