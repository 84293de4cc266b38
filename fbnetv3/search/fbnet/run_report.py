"""The report of a run: its facts, winners, commands and trials."""

from __future__ import annotations

import math
import shlex
from pathlib import Path

from fbnetv3.config import CfgNode
from fbnetv3.config.archs import is_detector
from fbnetv3.data.errors import plural
from fbnetv3.search.fbnet.bounds import budgets_from_config, constraints_from_config
from fbnetv3.search.fbnet.commands import read_command, resume_command, train_command
from fbnetv3.search.fbnet.config import settings_from_config
from fbnetv3.search.fbnet.datasets import counts_iterations, score_name
from fbnetv3.search.fbnet.layer_bars import layer_bars
from fbnetv3.search.fbnet.run_folder import RunFolder
from fbnetv3.search.fbnet.winner_trainings import training_lines
from fbnetv3.search.jointnas import JointNAS
from fbnetv3.search.predictors.predictor import fit_function
from fbnetv3.search.report import About, Winner, write_report
from fbnetv3.search.report.pretraining import compare_pretraining
from fbnetv3.search.result import SearchResult
from fbnetv3.search.storage.database import sqlite_url


def write_run_report(cfg: CfgNode, folder: RunFolder, search: JointNAS) -> Path:
    """Writes ``report.html`` of a run, finished or not.

    Args:
        cfg: Config of the search.
        folder: Folder of the run.
        search: The search, opened on the storage of the run.

    Returns:
        The path of the report.

    Raises:
        WriteError: The report cannot be written.
        MissingPackageError: A package of the extra ``report`` is not installed.
    """
    result = search.result()
    write_report(folder.report, search.space, result, _about(cfg, folder, search, result))
    return folder.report


def _about(cfg: CfgNode, folder: RunFolder, search: JointNAS, result: SearchResult) -> About:
    bounds = [*constraints_from_config(cfg), *budgets_from_config(cfg)]
    if bounds:
        statistic: str | None = bounds[0].name
    else:
        statistic = "macs" if search.plan.pool.statistics else None
    fit = fit_function(cfg.SEARCH.PREDICTOR)
    return About(
        title=f"Search {folder.path.resolve().name}",
        score=score_name(cfg),
        unit="iteration" if counts_iterations(cfg) else "epoch",
        facts=_facts(cfg, search),
        statistic=statistic,
        budgets=tuple(c.upper for c in bounds if c.name == statistic and c.upper is not None),
        resume=resume_command(folder.path, cfg),
        commands=_commands(folder, cfg, result),
        winners=tuple(_winner(folder, name, facts) for name, facts in folder.winners().items()),
        pretraining=compare_pretraining(
            search.space, search.plan.pool, result.trials, fit, cfg.SEED, cfg.SEARCH.DIRECTION
        ),
    )


def _facts(cfg: CfgNode, search: JointNAS) -> dict[str, str]:
    node, space = cfg.SEARCH, search.space
    powers = [f"10^{space.log10_cardinality_of(part):.1f}" for part in ("architecture", "recipe")]
    classes = classes_line(cfg, search)
    drawn = " at random" if node.HOLD_OUT_SAMPLING == "random" else ""
    test = (
        f"{node.HOLD_OUT} images held out{drawn}" if node.HOLD_OUT else ", ".join(cfg.DATASETS.TEST)
    )
    parts = len(settings_from_config(cfg).sizes_of_first_parts())
    divided = f" (the first one in {parts} parts)" if parts > 1 else ""
    return {
        "space": f"{node.SPACE}: {powers[0]} architectures, {powers[1]} recipes",
        "constraints": "; ".join(node.CONSTRAINTS) or "none",
        **({"budgets": "; ".join(node.BUDGETS)} if node.BUDGETS else {}),
        **({"objectives": ", ".join(node.OBJECTIVES)} if node.OBJECTIVES else {}),
        "data": f"{', '.join(cfg.DATASETS.TRAIN)}, scored on {test}",
        **({"classes": classes} if classes else {}),
        "plan": f"{plural(node.ITERATIONS, 'batch', 'es')} of {node.BATCH_SIZE}{divided} "
        f"from a pool of {len(search.plan.pool)}, then {plural(node.FINALISTS, 'finalist')}"
        f"{_seeds(node.FINAL_SEEDS)}; {_length(cfg)} each",
        "early stopping": early_stopping_line(cfg),
        "predictor": str(node.PREDICTOR),
        "seed": str(cfg.SEED),
    }


def _length(cfg: CfgNode) -> str:
    """Returns the length of trainings in the config as text; the space may set another length."""
    if cfg.SOLVER.MAX_EPOCHS > 0:
        epochs = cfg.SOLVER.MAX_EPOCHS
        return f"{epochs:g} epoch{'' if epochs == 1 else 's'}"
    return f"{cfg.SOLVER.MAX_ITER} iterations (for a batch of {cfg.SOLVER.REFERENCE_BATCH})"


def early_stopping_line(cfg: CfgNode) -> str:
    """Returns how trainings end before their full length; with RUNGS, EARLY_STOP is not used."""
    node = cfg.SEARCH
    if node.RUNGS:
        return f"by rungs (epochs {', '.join(map(str, node.RUNGS[:-1]))})"
    ranked = "all candidates" if node.EARLY_STOP_OVER == "all" else "the better half"
    return f"at rank correlation {node.EARLY_STOP:g} over {ranked}" if node.EARLY_STOP else "off"


def classes_line(cfg: CfgNode, search: JointNAS) -> str:
    """Returns a line about the classes that candidates train on and those of the final networks.

    The line is empty if candidates train on all classes of the data, and the final networks have
    all of them or are detectors.
    """
    trained, final = cfg.SEARCH.CLASSES, cfg.SEARCH.FINAL_CLASSES
    if not trained and (not final or is_detector(cfg)):
        return ""
    if not search.plan.pool.statistics:
        return f"candidates train on {trained or 'all'} classes"
    costs = f"their costs are those of networks with {final or trained} classes"
    return f"candidates train on {trained or 'all'} classes; {costs}"


def _commands(folder: RunFolder, cfg: CfgNode, result: SearchResult) -> dict[str, str]:
    """Returns commands by a description of their effect."""
    commands = {"update this report": read_command("--report", folder.path, cfg)}
    if any("macs" in t.statistics for t in result.feasible):
        front = [t.statistics["macs"] for t in result.pareto("macs")]
        budgets = [f"{_rounded_up(value):g}" for value in (min(front), max(front))]
        budgets = list(dict.fromkeys(budgets))
        examples = "two examples" if len(budgets) > 1 else "one example"
        purpose = f"write winners for other budgets, without training (here {examples})"
        commands[purpose] = read_command("--evolve", folder.path, cfg, "--macs", *budgets)
    configs = sorted(folder.front.glob("trial_*[0-9].yaml"))
    if configs:
        purpose = f"train a candidate of the Pareto front (here one of {len(configs)} configs)"
        commands[purpose] = train_command(configs[0])
    commands["show the trials in a dashboard (pip install optuna-dashboard)"] = shlex.join(
        ["optuna-dashboard", cfg.SEARCH.STORAGE or sqlite_url(folder.path / "search.db")]
    )
    return commands


def _rounded_up(value: float) -> float:
    """Returns a number rounded up to two significant digits; numbers up to 0 are not changed."""
    if value <= 0:
        return value
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.ceil(value / unit) * unit


def _winner(folder: RunFolder, name: str, facts: list[str]) -> Winner:
    path = folder.path / f"{name}.yaml"
    return Winner(name, (*facts, *training_lines(path)), train_command(path), layer_bars(path))


def _seeds(count: int) -> str:
    return "" if count == 1 else f" with {count} seeds each"
