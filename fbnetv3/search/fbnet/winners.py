"""What a search leaves beside its trials: winners as configs, and the report."""

from __future__ import annotations

import math
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fbnetv3.search.fbnet.places import place_words

if TYPE_CHECKING:
    from fbnetv3.search.fbnet.run_folder import RunFolder
    from fbnetv3.search.jointnas import JointNAS
    from fbnetv3.search.report import About, Winner
    from fbnetv3.search.result import SearchResult

_SCORE = "top-1 (%)"


def command(tool: str, *words: str) -> str:
    """Returns a command line of ours, as console script where this process is one.

    Args:
        tool: ``search`` or ``train``.
        words: its arguments.
    """
    name = {"search": "tools/jointnas_search.py", "train": "tools/train_net.py"}[tool]
    if Path(sys.argv[0]).name.startswith("fbnetv3-"):
        return shlex.join([f"fbnetv3-{tool}", *words])
    return shlex.join(["python", name, *words])


def resume_command(folder: Path, cfg: Any) -> str:
    """Returns the command that goes on with the search of a folder."""
    config = str(folder / "config.yaml")
    places = ("OUTPUT_DIR", str(folder), *place_words(cfg))
    return command("search", "--config-file", config, *places)


def train_command(path: Path) -> str:
    """Returns the command that trains a winner, or goes on with that."""
    return command("train", "--config-file", str(path), "--resume")


def costs(statistics: dict[str, float]) -> str:
    """Returns statistics as words that follow others."""
    return "".join(f", {name} {value:.4g}" for name, value in sorted(statistics.items()))


def write_winner(
    cfg: Any, folder: RunFolder, name: str, config: dict[str, Any], told: list[str]
) -> Path:
    """Writes ``NAME.yaml``, which ``train_net.py`` reads, and notes it; returns its path.

    Args:
        cfg: of the search.
        folder: of the run.
        name: ``best``, or ``best_`` and a budget.
        config: of the candidate.
        told: lines about it.
    """
    from fbnetv3.io import atomic_write
    from fbnetv3.search.fbnet.evaluator import space_from_config, winner_config

    found = winner_config(cfg, space_from_config(cfg), config, folder.path / name)
    path = folder.path / f"{name}.yaml"
    with atomic_write(path) as temporary:
        head = "".join(f"# {line}\n" for line in told)
        temporary.write_text(head + found.dump(), encoding="utf-8")
    folder.note_winner(name, told)
    return path


def report_run(cfg: Any, folder: RunFolder, search: JointNAS) -> Path:
    """Writes ``report.html`` of a run, finished or not; returns its path."""
    from fbnetv3.search.report import write_report

    result = search.result()
    write_report(folder.report, search.space, result, _about(cfg, folder, search, result))
    return folder.report


def _about(cfg: Any, folder: RunFolder, search: JointNAS, result: SearchResult) -> About:
    from fbnetv3.search.predictors.predictor import fit_function
    from fbnetv3.search.report import About
    from fbnetv3.search.report.pretraining import compare_pretraining

    fit = fit_function(cfg.SEARCH.PREDICTOR)
    bounds = [(c.name, c.upper) for c in _constraints(cfg)]
    statistic = bounds[0][0] if bounds else "macs" if search.plan.pool.statistics else None
    return About(
        title=f"Search {folder.path.resolve().name}",
        score=_SCORE,
        facts=_facts(cfg, search),
        statistic=statistic,
        budgets=tuple(upper for name, upper in bounds if name == statistic and upper is not None),
        resume=resume_command(folder.path, cfg),
        commands=_commands(folder, cfg, result),
        winners=tuple(_winner(folder, name, told) for name, told in folder.winners().items()),
        pretraining=compare_pretraining(
            search.space, search.plan.pool, result.trials, fit, cfg.SEED
        ),
    )


def _constraints(cfg: Any) -> list[Any]:
    from fbnetv3.search.fbnet.config import settings_from_config

    settings = settings_from_config(cfg)
    return [*settings.constraints, *settings.budgets]


def _facts(cfg: Any, search: JointNAS) -> dict[str, str]:
    node, space = cfg.SEARCH, search.space
    powers = [f"10^{space.log10_of(part):.1f}" for part in ("architecture", "recipe")]
    stop = f"at rank correlation {node.EARLY_STOP:g}" if node.EARLY_STOP else "off"
    held = f", scored on {node.HOLD_OUT} images of it" if node.HOLD_OUT else ""
    return {
        "space": f"{node.SPACE}: {powers[0]} architectures, {powers[1]} recipes",
        "constraints": "; ".join(node.CONSTRAINTS) or "none",
        **({"budgets": "; ".join(node.BUDGETS)} if node.BUDGETS else {}),
        "data": ", ".join(cfg.DATASETS.TRAIN)
        + (held or f", scored on {', '.join(cfg.DATASETS.TEST)}"),
        "plan": f"{node.ITERATIONS} batches of {node.BATCH_SIZE} from a pool of "
        f"{len(search.plan.pool)}, then {node.FINALISTS} finalists; {cfg.SOLVER.MAX_EPOCHS:g} "
        "epochs each",
        "early stopping": stop,
        "predictor": str(node.PREDICTOR),
        "seed": str(cfg.SEED),
    }


def _commands(folder: RunFolder, cfg: Any, result: SearchResult) -> dict[str, str]:
    run = (str(folder.path), *place_words(cfg, to_read=True))
    found = {"make this report anew": command("search", "--report", *run)}
    having = [t for t in result.trials if "macs" in t.statistics and t.state == "complete"]
    if having:
        front = [t.statistics["macs"] for t in result.pareto("macs")]
        budgets = [f"{_rounded(value):g}" for value in (min(front), max(front))]
        words = "write winners for other budgets, without training (two budgets as examples)"
        found[words] = command("search", "--evolve", *run, "--macs", *dict.fromkeys(budgets))
    found["look at the trials in a dashboard (pip install optuna-dashboard)"] = shlex.join(
        ["optuna-dashboard", cfg.SEARCH.STORAGE or f"sqlite:///{folder.path / 'search.db'}"]
    )
    return found


def _rounded(value: float) -> float:
    """Returns two digits of a number, rounded up."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.ceil(value / unit) * unit


def _winner(folder: RunFolder, name: str, told: list[str]) -> Winner:
    from fbnetv3.search.report import Winner

    trained = _trained_score(folder.path / name / "metrics.json")
    return Winner(name, (*told, *trained), train_command(folder.path / f"{name}.yaml"))


def _trained_score(metrics: Path) -> list[str]:
    """Returns what a winner scored when it was trained, if it was."""
    from fbnetv3.engine.metrics import last_scores

    kept = ("val/top1", "val/top1_ema")
    found = last_scores(metrics).items()
    scores = {k: v for k, v in found if k in kept and isinstance(v, (int, float))}
    told = ", ".join(f"{key.removeprefix('val/')} {value:.4g}" for key, value in scores.items())
    return [f"trained: {told}"] if told else []
