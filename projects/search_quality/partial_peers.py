"""Peers that stop trainings early, one training at a time, with their defaults."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from projects.search_quality.curves import CurveProblem
from projects.search_quality.methods.method import config_from, is_feasible, varied


class Step(NamedTuple):
    """A part of a training.

    Attributes:
        epochs: Number of epochs of the part.
        config: Configuration that is trained.
        score: Observed score by which the configuration is compared; None: it is not compared.
        rest: Number of epochs after this part until the configuration is trained in full.
    """

    epochs: int
    config: dict[str, Any]
    score: float | None
    rest: int = 0


def optuna_steps(problem: CurveProblem, seed: int) -> Iterator[Step]:
    """Yields the trainings of Optuna's TPE with its Hyperband pruner."""
    import optuna

    from projects.search_quality.methods.optuna_samplers import distribution, snapped

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", module="optuna")
    space, last = problem.problem.space, problem.epochs
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed),
        pruner=optuna.pruners.HyperbandPruner(problem.rungs[0], last),
    )
    distributions = {p.name: distribution(p) for p in space.parameters}
    while True:
        trial = study.ask(distributions)
        config = snapped(space, trial.params)
        if not is_feasible(problem.problem, config):
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            continue
        trained, score = last, None
        for epoch, value in enumerate(problem.curve(config, seed).tolist(), 1):
            trial.report(value, epoch)
            score = value if epoch == last else None
            if epoch < last and trial.should_prune():
                trained = epoch
                break
        state = None if trained == last else optuna.trial.TrialState.PRUNED
        study.tell(trial, score, state=state)
        yield Step(trained, config, score)


def syne_tune_steps(problem: CurveProblem, seed: int) -> Iterator[Step]:
    """Yields the trainings of Syne Tune's ASHA, which stops trainings at its rungs."""
    from syne_tune.backend.trial_status import Trial
    from syne_tune.optimizer.baselines import ASHA
    from syne_tune.optimizer.scheduler import SchedulerDecision

    from projects.search_quality.methods.syne_tune_searchers import domains

    warnings.filterwarnings("ignore")
    last = problem.epochs
    scheduler = ASHA(
        domains(problem.problem),
        metric="score",
        time_attr="epoch",
        max_t=last,
        do_minimize=False,
        random_seed=seed,
        grace_period=problem.rungs[0],
        reduction_factor=problem.rungs[1] / problem.rungs[0],
    )
    number = 0
    while True:
        values = dict(scheduler.suggest().config)
        config = config_from(problem.problem.space, values)
        if not is_feasible(problem.problem, config):
            continue
        trial = Trial(number, values, None)
        number += 1
        scheduler.on_trial_add(trial)
        trained, score = last, None
        for epoch, value in enumerate(problem.curve(config, seed).tolist(), 1):
            result = {"score": value, "epoch": epoch}
            score = value if epoch == last else None
            if scheduler.on_trial_result(trial, result) == SchedulerDecision.STOP:
                trained = epoch
                break
        yield Step(trained, config, score)


def neps_steps(problem: CurveProblem, seed: int) -> Iterator[Step]:
    """Yields the parts of trainings of NePS's Hyperband, which continues them."""
    import neps
    import torch

    from projects.search_quality.methods.neps_optimizer import description

    warnings.filterwarnings("ignore")
    logging.getLogger("neps").setLevel(logging.ERROR)
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - NePS draws from the global states
    variables = {p.name: description(p) for p in varied(problem.problem.space)}
    epochs = neps.HPOInteger(problem.rungs[0], problem.epochs, is_fidelity=True)
    space = neps.SearchSpace({**variables, "epoch": epochs})
    optimizer = neps.AskAndTell(
        neps.algorithms.hyperband(space, eta=round(problem.rungs[1] / problem.rungs[0]))
    )
    done: dict[str, int] = {}
    while True:
        trial = optimizer.ask()
        values = dict(trial.config)
        epoch = int(values.pop("epoch"))
        config = config_from(problem.problem.space, values)
        if not is_feasible(problem.problem, config):
            optimizer.tell(trial, ValueError("the cost is above its limit"))
            continue
        value = float(problem.curve(config, seed)[epoch - 1])
        optimizer.tell(trial, -value)
        key = str(trial.id).partition("_")[0]
        trained, done[key] = epoch - done.get(key, 0), epoch
        yield Step(trained, config, value if epoch == problem.epochs else None)
