"""Search methods with a common interface: ask for a batch of configurations, tell their scores.

Constraints apply to costs that are known before a training. For every method, a candidate that
violates a constraint is discarded and another one is proposed; it does not count as an evaluation.
The docstring of each method states whether the method is told of infeasible candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from projects.search_quality.methods.ax_client import AxClient
from projects.search_quality.methods.botorch_nei import BoTorch
from projects.search_quality.methods.hebo_gp import Hebo
from projects.search_quality.methods.jointnas import Ours
from projects.search_quality.methods.method import Budget, Maker, Method
from projects.search_quality.methods.neps_optimizer import Neps
from projects.search_quality.methods.optuna_samplers import Optuna, cmaes, gp, tpe
from projects.search_quality.methods.plain import Evolution, Forest, RandomSearch, Sobol
from projects.search_quality.methods.smac_facade import Smac
from projects.search_quality.methods.syne_tune_searchers import bore, cqr
from projects.search_quality.problem import Problem

__all__ = [
    "METHODS",
    "OF_PEERS_TXT",
    "OURS",
    "PEERS",
    "Maker",
    "Method",
    "Optuna",
    "Ours",
    "RandomSearch",
]


def _ours(**options: Any) -> Maker:
    def make(problem: Problem, seed: int, budget: Budget) -> Method:
        return Ours(problem, seed, budget, **options)

    return make


METHODS: dict[str, Maker] = {
    "JointNAS": _ours(),
    "JointNAS, no stage 2": _ours(finalists=0),
    "JointNAS, no pre-training": _ours(pretrain=False),
    "JointNAS, paper's form": _ours(predictor="paper"),
    "JointNAS, recipe fixed": _ours(fixed="recipe"),
    "JointNAS, architecture fixed": _ours(fixed="architecture"),
    "random": RandomSearch,
    "Sobol": Sobol,
    "regularised evolution": Evolution,
    "random forest": Forest,
    "TPE": tpe,
    "GP (Optuna)": gp,
    "CMA-ES": cmaes,
    "SMAC3": Smac,
    "HEBO": Hebo,
    "Ax": AxClient,
    "BoTorch qLogNEI": BoTorch,
    "CQR (Syne Tune)": cqr,
    "BORE (Syne Tune)": bore,
    "NePS": Neps,
}
OURS: Sequence[str] = [name for name in METHODS if name.startswith("JointNAS")]
PEERS: Sequence[str] = [name for name in METHODS if name not in OURS]
OF_PEERS_TXT: Sequence[str] = list(METHODS)[list(METHODS).index("HEBO") :]
"""Peers whose packages ``peers.txt`` lists; the packages of the others are the extra ``peers``."""
