"""The keys of a search's config: the keys of a training, and the group SEARCH."""

from __future__ import annotations

from typing import Any

from fbnetv3.config import CfgNode, get_cfg
from fbnetv3.config.keys import ADDED_KEYS as ADDED_TRAINING_KEYS

KEYS: dict[str, tuple[Any, str]] = {
    "SPACE": ("fbnetv3", "Packaged space such as fbnetv3 or timm_vit, registered name, or yaml."),
    "FIX": ([], "Variables that keep a single value: [NAME, VALUE, NAME, VALUE, ...]."),
    "CONSTRAINTS": (
        [],
        "Bounds, e.g. '4e8 <= macs <= 8e8'; the first trials spread over the first bound's range.",
    ),
    "BUDGETS": (
        [],
        "Upper bounds such as 'macs <= 4e8', one winner each; batches are divided among them.",
    ),
    "LATENCY_TABLE": (
        "",
        "Json written by fbnetv3-benchmark --latency-table, for constraints on latency_ms.",
    ),
    "POOL_SIZE": (20_000, "Number of candidates in the quasi-Monte Carlo pool (n)."),
    "BATCH_SIZE": (48, "Number of candidates trained per iteration (m)."),
    "FIRST_PARTS": (
        0,
        "Number of parts of batch 1; the predictor chooses all but the first; 0: up to 3.",
    ),
    "ITERATIONS": (4, "Number of batches in stage 1 (T); a larger number continues a search."),
    "PREDICTOR": (
        "default",
        "'default' (networks and a Gaussian process), 'paper', or 'random' as a baseline.",
    ),
    "PRETRAIN": (True, "Pre-train the architecture encoder on statistics such as MACs."),
    "EARLY_STOP": (
        0.92,
        "Later batches train to an epoch with this rank correlation to final scores; 0: in full.",
    ),
    "EARLY_STOP_OVER": (
        "better_half",
        "Trials of batch 1 that EARLY_STOP correlates: 'better_half', or 'all' as in the paper.",
    ),
    "RUNGS": (
        [],
        "Epochs after which candidates are compared and the best go on, e.g. [3, 9, 27]; []: off.",
    ),
    "DIRECTION": (
        "maximize",
        "'maximize', or 'minimize' for the score of an evaluator of your own, such as a loss.",
    ),
    "OBJECTIVES": (
        [],
        "Objectives of a Pareto front: ['score', '-macs']; '-': minimised; []: the score alone.",
    ),
    "FINALISTS": (8, "Number of stage 2 candidates that are trained before the winner is named."),
    "FINAL_SEEDS": (1, "Number of trainings of each finalist, with different random seeds."),
    "AHEAD": (
        0,
        "Unfinished trials allowed when a batch is proposed; 0: reproducible from the seed.",
    ),
    "WARM_START": (
        "",
        "Earlier results: folder of a run, URL of an Optuna storage, Optuna's csv, csv of scores.",
    ),
    "WARM_START_STUDY": ("", "Name of a study in WARM_START; empty: its only study."),
    "STORAGE": (
        "",
        "Optuna storage URL such as postgresql://HOST/DATABASE; empty: search.db in OUTPUT_DIR.",
    ),
    "STUDY": ("jointnas", "Name of the search in the storage, which may hold several."),
    "EXECUTOR": (
        "local",
        "Where candidates train: 'local' (this machine), 'ray' (a cluster), or a registered name.",
    ),
    "EVALUATOR": ("train", "What scores a candidate: 'train', or a registered name."),
    "WORKERS": (
        0,
        "Worker processes of 'local'; 0: main process; auto: by the number of GPUs or CPU cores.",
    ),
    "WORKERS_PER_GPU": (1, "Workers on each GPU, if WORKERS is auto; more for small candidates."),
    "THREADS": (1, "CPU threads of each worker; auto: its cores less its data-loader workers."),
    "LOADER_WORKERS": (
        -1,
        "Data-loader workers of a candidate; -1: DATALOADER.NUM_WORKERS; auto: by the cores.",
    ),
    "TIMEOUT": (
        0.0,
        "Seconds after which the training of a candidate fails; needs workers; 0: no limit.",
    ),
    "STOP_AFTER_FAILURES": (
        5,
        "Errors of devices or data in a row, or failed first trials, that end a run; 0: never.",
    ),
    "MAX_HOURS": (
        0.0,
        "Hours after which a run ends as at Ctrl-C; the same command resumes; 0: no limit.",
    ),
    "CANDIDATES": (
        "",
        "Folder or URI such as s3://BUCKET/RUN for the candidates' files; empty: OUTPUT_DIR.",
    ),
    "CLASSES": (0, "Number of classes, drawn at random, to train on; 0: all."),
    "FINAL_CLASSES": (
        0,
        "Classes of the final networks, for which costs are counted; 0: all of DATASETS.TRAIN.",
    ),
    "HOLD_OUT": (
        0,
        "Number of training images held out to score candidates on; 0: score on DATASETS.TEST.",
    ),
    "HOLD_OUT_SAMPLING": (
        "stratified",
        "How held-out images are drawn: 'stratified' by class, or 'random' as in the paper.",
    ),
    "ASPECT_RATIO": (
        1.0,
        "Detectors: longer / shorter side of the image for which costs are counted; 1.0: a square.",
    ),
    "KEEP_WEIGHTS": (False, "Keep the weights of every candidate in addition to its scores."),
    "FINAL": ([], "KEY VALUE pairs changed in the winners' configs, such as a longer schedule."),
    "RAY.ADDRESS": (
        "",
        "Cluster such as 10.0.0.1:6379 (command line only); empty: RAY_ADDRESS or a new one.",
    ),
    "RAY.WORKERS": (
        0,
        "Largest number of candidates that train at a time; 0: as many as the cluster holds.",
    ),
    "RAY.CPUS": (0.0, "CPUs reserved for a candidate; 0: its threads and data-loader workers."),
    "RAY.GPUS": (
        -1.0,
        "GPUs reserved for a candidate (0.25: a quarter of one); -1: 1 unless on the CPU.",
    ),
    "EVOLUTION.BEST": (50, "Best trained candidates in the first generation of stage 2 (p)."),
    "EVOLUTION.RANDOM": (50, "Random candidates in the first generation of stage 2 (q)."),
    "EVOLUTION.CHILDREN": (12, "Children of each candidate per generation."),
    "EVOLUTION.TOP": (40, "Candidates that survive a generation (K)."),
    "EVOLUTION.EPSILON": (
        1e-6,
        "A gain above this is progress; in interquartile ranges of the first generation's scores.",
    ),
    "EVOLUTION.PATIENCE": (1, "Generations in a row without progress after which stage 2 ends."),
    "EVOLUTION.CROSSOVER_FITNESS": (
        "mother",
        "Parent whose score sets the crossover rate: 'mother', or 'better_parent' as in the paper.",
    ),
    "EVOLUTION.REDRAW": (
        False,
        "Redraw children that violate a constraint or exist already (paper); False: drop them.",
    ),
}
"""Default and description of each key below SEARCH."""
RESUMABLE_KEYS = (
    "OUTPUT_DIR",
    "SEARCH.EXECUTOR",
    "SEARCH.WORKERS",
    "SEARCH.WORKERS_PER_GPU",
    "SEARCH.THREADS",
    "SEARCH.LOADER_WORKERS",
    "SEARCH.STOP_AFTER_FAILURES",
    "SEARCH.TIMEOUT",
    "SEARCH.MAX_HOURS",
    "SEARCH.CANDIDATES",
    "SEARCH.RAY.ADDRESS",
    "SEARCH.RAY.WORKERS",
    "SEARCH.RAY.CPUS",
    "SEARCH.RAY.GPUS",
    "SEARCH.KEEP_WEIGHTS",
    "WRITERS",
)
"""Keys whose values may differ when a search is resumed: where and how it runs.

They do not affect the results, with two exceptions: SEARCH.THREADS may change scores by rounding,
and after SEARCH.TIMEOUT a candidate fails.
"""
EXTENSIBLE_KEYS = ("SEARCH.ITERATIONS",)
"""Keys that may be raised to continue a search; its storage refuses lower values."""
AUTO_KEYS = ("WORKERS", "THREADS", "LOADER_WORKERS")
"""Keys below SEARCH that accept an integer or ``auto``."""
NON_SCORE_KEYS = (
    "MODEL.DEVICE",
    "DATALOADER.NUM_WORKERS",
    "DATALOADER.PERSISTENT_WORKERS",
    "DATALOADER.PIN_MEMORY",
    "DATALOADER.PREFETCH",
    "SOLVER.CHECKPOINT_EPOCHS",
    "SOLVER.CHECKPOINT_PERIOD",
    "SOLVER.KEEP_BEST",
    "SOLVER.KEEP_CHECKPOINTS",
    "SOLVER.LOG_PERIOD",
    "TEST.BATCH_SIZE",
    "VERSION",
    "WRITERS",
)
"""Keys of a training that do not affect a score: where and how it runs, and what it writes.

MODEL.DEVICE affects scores only by rounding; on a CPU, AMP.DTYPE float16 becomes float32.
"""
ADDED_KEYS = (
    *ADDED_TRAINING_KEYS,
    "SEARCH.DIRECTION",
    "SEARCH.FIRST_PARTS",
    "SEARCH.OBJECTIVES",
    "SEARCH.RUNGS",
    "SEARCH.EARLY_STOP_OVER",
    "SEARCH.EVALUATOR",
    "SEARCH.FINAL_CLASSES",
    "SEARCH.FINAL_SEEDS",
    "SEARCH.HOLD_OUT_SAMPLING",
    "SEARCH.WARM_START_STUDY",
    "SEARCH.ASPECT_RATIO",
    "SEARCH.EVOLUTION.CROSSOVER_FITNESS",
    "SEARCH.EVOLUTION.REDRAW",
)
"""Keys that an earlier version of this package lacks.

The log of the batches (``log/``) and a candidate's folder are identified by config values. Keys
listed here are left out of these values if they have their default, so that logs and folders of
earlier versions still match.
"""
FILE_KEYS = ("SEARCH.SPACE", "SEARCH.LATENCY_TABLE", "MODEL.ARCH", "MODEL.TEACHER", "MODEL.WEIGHTS")
"""Keys that may name a file whose content affects the results.

SEARCH.WARM_START is not among them: the storage keeps the scores that are read from its file.
"""


def get_search_cfg() -> CfgNode:
    """Returns the default config of a search: all keys of a training, and the group SEARCH."""
    cfg = get_cfg()
    cfg.set_new_allowed(True)
    cfg.SEARCH = CfgNode()
    cfg.set_new_allowed(False)
    cfg.SEARCH.set_new_allowed(True)
    for full_key, (value, _) in KEYS.items():
        group, _, key = full_key.rpartition(".")
        if group and group not in cfg.SEARCH:
            cfg.SEARCH[group] = CfgNode()
            cfg.SEARCH[group].set_new_allowed(True)
        (cfg.SEARCH[group] if group else cfg.SEARCH)[key] = value
    cfg.SEARCH.allow_auto(*AUTO_KEYS)
    cfg.SEARCH.set_new_allowed(False)  # applies to the groups below, too
    return cfg
