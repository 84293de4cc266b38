"""The decisions of a search as functions of its past: pool, model, next batch, evolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from fbnetv3.search.acquisition import coarse, fine
from fbnetv3.search.acquisition.batch import Probabilistic, next_batch
from fbnetv3.search.acquisition.candidates import Candidates
from fbnetv3.search.acquisition.early_stopping import EarlyStop, find_early_stop
from fbnetv3.search.errors import SearchError
from fbnetv3.search.predictors.encoder import Pretrained, pretrain
from fbnetv3.search.predictors.networks import Floats
from fbnetv3.search.predictors.predictor import Fit, Predictor
from fbnetv3.search.predictors.report_card import ReportCard, make_card
from fbnetv3.search.space.constraints import Constraint, Costs, feasible, within
from fbnetv3.search.space.encoding import Encoding
from fbnetv3.search.space.parameters import Levels
from fbnetv3.search.space.pool import Pool, Reach, check_feasible, make_pool, priced
from fbnetv3.search.space.space import SearchSpace, keys_of, unique_rows
from fbnetv3.search.trial import Trial

Batches = Sequence[Sequence[Trial]]
_FEWEST_LABELS = 5
_ELITE = 32
_COARSE, _FINE, _FIT = 21, 22, 23  # tell the random streams of one seed apart


@dataclass(frozen=True)
class Plan:
    """What is known before anything trains."""

    pool: Pool
    reach: dict[str, Reach]
    pretrained: Pretrained


@dataclass(frozen=True)
class Known:
    """Trials so far, their scores at the epoch that counts."""

    trials: list[Trial]
    early_stop: EarlyStop | None

    @property
    def complete(self) -> list[Trial]:
        """Trials with a score."""
        return [t for t in self.trials if t.state == "complete"]


@dataclass(frozen=True)
class Model:
    """A fitted predictor and how well it does."""

    predictor: Predictor
    card: ReportCard


class Planner:
    """Decides; holds nothing but what follows from its arguments, and caches of that.

    Args: see JointNAS.
    """

    def __init__(
        self,
        space: SearchSpace,
        costs: Costs,
        constraints: tuple[Constraint, ...],
        budgets: tuple[Constraint, ...] = (),
        *,
        fit: Fit,
        pool_size: int,
        batch_size: int,
        threshold: float | None,
        evolution: fine.EvolutionSettings,
        pretrain: bool,
        warm: list[Trial],
        seed: int,
    ) -> None:
        self._space, self._costs, self._constraints = space, costs, constraints
        self._fit, self._threshold, self._settings = fit, threshold, evolution
        self._pretrain, self._warm, self._seed = pretrain, warm, seed
        self._encoding = Encoding(space)
        self._pool_size, self._batch_size = pool_size, batch_size
        self._models: dict[int, Model | None] = {}
        self._rows: dict[str, Levels] = {}
        self._budgets = [within(constraints, budget) for budget in budgets]
        for budget in self._budgets:
            check_feasible(space, costs, budget, seed)
        self._pool, self._reach = make_pool(space, costs, constraints, pool_size, seed)
        if len(self._pool) < batch_size:
            raise SearchError(
                f"batch_size={batch_size} is larger than the pool: the space has only "
                f"{len(self._pool)} candidates that meet the constraints; lower batch_size"
            )

    @cached_property
    def plan(self) -> Plan:
        """The pool with the encoder trained on its statistics."""
        columns = self._encoding.columns_of("architecture")
        if not self._pretrain:
            return Plan(self._pool, self._reach, Pretrained(columns))
        features = self._encoding.encode(self._pool.levels)
        trained = pretrain(features, self._pool.statistics, columns, self._seed)
        return Plan(self._pool, self._reach, trained)

    def known(self, batches: Batches) -> Known:
        """Returns the trials so far, with their scores at the early epoch, once that is known."""
        trials = [*self._warm, *(t for batch in batches for t in batch)]
        stop = self._early_stop(batches)
        epoch = None if stop is None else stop.epoch
        for trial in trials:
            if trial.state == "complete":
                # both ways: a batch may have been proposed when less was known than now
                final = trial.final_score
                trial.score = final if epoch is None else trial.reports.get(epoch, final)
        return Known(trials, stop)

    def _early_stop(self, batches: Batches) -> EarlyStop | None:
        if self._threshold is None or not batches:
            return None
        if any(trial.state == "running" for trial in batches[0]):
            return None
        reports = [t.reports for t in batches[0] if t.state == "complete"]
        return find_early_stop(reports, self._threshold)

    def model(self, batches: Batches) -> Model | None:
        """Returns the predictor of the batches that are whole, None where there are too few scores.

        Those after the first that still runs are left out: what is told does not depend on when.
        """
        count = _whole(batches)
        if count not in self._models:
            self._models[count] = self._fitted(batches[:count], count)
        return self._models[count]

    def _fitted(self, batches: Batches, count: int) -> Model | None:
        complete = self.known(batches).complete
        if len(complete) < _FEWEST_LABELS:
            return None
        # by number: the order in which results came in must not matter
        complete.sort(key=lambda t: t.number)
        features = self._encoding.encode(self._levels(complete))
        labels: Floats = np.array([t.score for t in complete], dtype=np.float64)
        seed = int(np.random.default_rng([self._seed, _FIT, count]).integers(2**31))
        predictor = self._fit(features, labels, self.plan.pretrained, seed)
        pairs = [
            (t.predicted, t.score)
            for t in (batches[-1] if batches else [])
            if t.predicted is not None and t.score is not None
        ]
        return Model(predictor, make_card(predictor.cross_validated(), labels, pairs))

    def cards(self, batches: Batches) -> list[ReportCard]:
        """Returns the report card of each round; of rounds before a resumption they are redone."""
        ends = range(1, _whole(batches) + 1)
        models = [self.model(batches[:end]) for end in ends]
        return [model.card for model in models if model is not None]

    def propose(self, batches: Batches, count: int, stage: str) -> list[Trial]:
        """Returns the next batch of trials; fewer than ``count`` where the space is exhausted.

        Args:
            batches: the past; trials in it may still run.
            count: of trials.
            stage: ``coarse`` or ``fine``.
        """
        known = self.known(batches)
        is_whole = _whole(batches) == len(batches)
        model = self.model(batches) if is_whole else self._fitted(batches, len(batches))
        if stage == "fine":
            chosen = self._finalists(batches, known, count) if model else None
        else:
            chosen = self._coarse(batches, known, model, count)
        if chosen is None or not len(chosen):
            return []
        epoch = None if known.early_stop is None else known.early_stop.epoch
        first = sum(len(batch) for batch in batches)
        ids = self._space.ids(chosen.levels)
        self._rows |= zip(ids, chosen.levels, strict=True)
        predicted = self._predicted(model, chosen.levels)
        return [
            Trial(
                key,
                first + i,
                len(batches),
                config,
                max_epochs=epoch,
                statistics={k: float(v[i]) for k, v in chosen.statistics.items()},
                predicted=predicted[i],
                stage=stage,
            )
            for i, (key, config) in enumerate(
                zip(ids, self._space.configs(chosen.levels), strict=True)
            )
        ]

    def _predicted(self, model: Model | None, levels: Levels) -> list[Any]:
        if model is None:
            return [None] * len(levels)
        found: list[Any] = model.predictor.predict(self._encoding.encode(levels)).tolist()
        return found

    def _levels(self, trials: Sequence[Trial]) -> Levels:
        """Returns (trials, variables); each config is read once, however often it is asked for."""
        new = [t for t in trials if t.id not in self._rows]
        if new:
            levels = self._space.levels([t.config for t in new])
            self._rows |= zip((t.id for t in new), levels, strict=True)
        rows = [self._rows[t.id] for t in trials]
        return np.array(rows, dtype=np.int64).reshape(len(rows), len(self._space))

    def _tried(self, known: Known) -> set[bytes]:
        return set(keys_of(self._levels(known.trials)))

    def _coarse(self, batches: Batches, known: Known, model: Model | None, count: int) -> Pool:
        tried = self._tried(known)
        free = self._pool.take(unique_rows(self._pool.levels, tried))
        statistic = self._constraints[0].name if self._constraints else None
        if model is None:
            return free.take(coarse.first_batch(free, count, statistic)) if len(free) else free
        random = np.random.default_rng([self._seed, _COARSE, len(batches)])
        if isinstance(model.predictor, Probabilistic):
            return self._by_budget(known, model.predictor, count, tried, random)
        if not len(free):
            return free
        features = self._encoding.encode(free.levels)
        scores = model.predictor.predict(features)
        return free.take(coarse.paper_batch(free, features, scores, count, statistic))

    def _shares(self, count: int) -> list[tuple[tuple[Constraint, ...], int]]:
        """Divides so many candidates among the budgets, evenly."""
        if not self._budgets:
            return [(self._constraints, count)]
        each, more = divmod(count, len(self._budgets))
        shares = [(budget, each + (i < more)) for i, budget in enumerate(self._budgets)]
        return [(budget, share) for budget, share in shares if share]

    def _by_budget(
        self,
        known: Known,
        predictor: Probabilistic,
        count: int,
        tried: set[bytes],
        random: np.random.Generator,
    ) -> Pool:
        """Returns a batch, a part of it for each budget; parts before it are as pending to each."""
        pending = self._levels([t for t in known.trials if t.state == "running"])
        chosen = self._pool.take(np.zeros(0, dtype=np.int64))
        ranked = self._levels(_ranked(known))
        for constraints, share in self._shares(count):
            trained, best = ranked, None
            if self._budgets:
                allowed = feasible(self._costs(ranked), constraints, len(ranked))
                trained = ranked[allowed]
                means = predictor.process.mean(self._encoding.encode(ranked).astype(np.float64))
                # where nothing was trained within a budget, all of it would be an improvement
                best = float(means[allowed].max() if allowed.any() else means.min())
            candidates = Candidates(
                self._space,
                self._encoding,
                self._costs,
                constraints,
                self._pool_within(constraints, share),
                trained[:_ELITE],
            )
            found = next_batch(candidates, predictor, share, tried, random, pending, best)
            tried = tried | set(keys_of(found.levels))
            pending = np.concatenate([pending, found.levels])
            chosen = chosen.joined(found)
        return chosen

    def _pool_within(self, constraints: tuple[Constraint, ...], least: int) -> Pool:
        """Returns what of the pool meets constraints; where that is too little, another pool."""
        allowed = self._pool.take(feasible(self._pool.statistics, constraints, len(self._pool)))
        if len(allowed) < least:
            allowed, _ = make_pool(self._space, self._costs, constraints, least, self._seed)
        return allowed

    def _finalists(self, batches: Batches, known: Known, count: int) -> Pool:
        """Returns the best of stage 2 that were not trained yet, a part of them for each budget."""
        tried = self._tried(known)
        chosen = self._pool.take(np.zeros(0, dtype=np.int64))
        for constraints, share in self._shares(count):
            found = self.evolve(batches, constraints, None).pool
            found = found.take(unique_rows(found.levels, tried)[:share])
            tried = tried | set(keys_of(found.levels))
            chosen = chosen.joined(found)
        return chosen

    def evolve(
        self, batches: Batches, constraints: Sequence[Constraint] | None, top_k: int | None
    ) -> fine.Evolved:
        """Runs stage 2; see JointNAS.evolve."""
        wanted = self._constraints if constraints is None else tuple(constraints)
        self._costs.check(wanted)
        model = self.model(batches)
        if model is None:
            raise SearchError("there are too few scores to predict from; run the search first")
        settings = self._settings
        if top_k is not None and top_k > settings.top:
            settings = replace(settings, top=top_k)  # never fewer: a generation needs breadth
        predictor = model.predictor
        found = fine.evolve(
            self._space,
            self._costs,
            wanted,
            self._first_generation(self.known(batches), wanted, settings),
            lambda levels: predictor.predict(self._encoding.encode(levels)),
            settings,
            np.random.default_rng([self._seed, _FINE]),
        )
        return found.head(settings.top if top_k is None else top_k)

    def _first_generation(
        self, known: Known, constraints: tuple[Constraint, ...], settings: fine.EvolutionSettings
    ) -> Pool:
        """Returns the p best trained and q random candidates that meet the constraints."""
        trained = priced(self._costs, self._levels(_ranked(known)))
        trained = trained.take(feasible(trained.statistics, constraints, len(trained)))
        best = trained.take(np.arange(min(settings.best, len(trained))))
        wanted = settings.random + settings.best - len(best)
        allowed = self._pool_within(constraints, wanted)
        random = np.random.default_rng([self._seed, _FINE, 1])
        both = best.joined(allowed.take(random.permutation(len(allowed))[:wanted]))
        return both.take(unique_rows(both.levels))


def _ranked(known: Known) -> list[Trial]:
    """Returns the trials with a score, best first."""
    return sorted(known.complete, key=lambda t: (-(t.score or 0.0), t.number))


def _whole(batches: Batches) -> int:
    """Returns how many batches there are before the first that still runs."""
    ends = (i for i, batch in enumerate(batches) if any(t.state == "running" for t in batch))
    return next(ends, len(batches))
