"""The decisions of a search as functions of its history: pool, model, next batch, evolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from fbnetv3.search.acquisition import fine
from fbnetv3.search.acquisition.avoidance import Avoided, FailureModel, any_of, failing_last
from fbnetv3.search.acquisition.batch import Probabilistic
from fbnetv3.search.acquisition.reserves import Reserves
from fbnetv3.search.bounded_scores import BoundedScores
from fbnetv3.search.direction import gain
from fbnetv3.search.errors import SearchError
from fbnetv3.search.fronts import Fronts, check_several_scores, models_of_scores
from fbnetv3.search.history import History, Known, score_trials
from fbnetv3.search.models import Model, Models
from fbnetv3.search.objectives import objectives_of
from fbnetv3.search.plan import Plan
from fbnetv3.search.predictors.encoder import Pretrained, pretrain
from fbnetv3.search.promotion import Promotion, in_turns
from fbnetv3.search.replicates import replicated
from fbnetv3.search.rungs import whole_trainings
from fbnetv3.search.settings import SearchSettings
from fbnetv3.search.space.constraints import Constraint
from fbnetv3.search.space.encoding import Encoding
from fbnetv3.search.space.feasible import FeasibleSpace
from fbnetv3.search.space.parameters import Levels
from fbnetv3.search.space.pool import Pool
from fbnetv3.search.space.reach import measure_reach
from fbnetv3.search.space.space import keys_of, unique_rows
from fbnetv3.search.stage_one import StageOne, batch_without_posterior, shares
from fbnetv3.search.stage_two import StageTwo
from fbnetv3.search.trial import Trial
from fbnetv3.search.trial_levels import TrialLevels

_COARSE = 21  # separates the random streams of one seed


class Planner:
    """Decides what a search does next.

    The results of its methods depend on their arguments and those of the constructor alone.

    Args:
        feasible: Space and constraints.
        settings: Settings of the search.
        warm_start: Complete trials of an earlier search.

    Attributes:
        warm_start: Trials of the argument, with their statistics; some may violate the constraints.
        models: The fitted predictors of the first score.
        objectives: Objectives of the search.

    Raises:
        InfeasibleError: Too few candidates meet the constraints, or a budget.
        SearchError: The feasible space has fewer candidates than a batch, an objective is unknown,
            or settings cannot be combined.
    """

    def __init__(
        self, feasible: FeasibleSpace, settings: SearchSettings, warm_start: Sequence[Trial] = ()
    ) -> None:
        self._feasible, self._settings = feasible, settings
        self._space, self._encoding = feasible.space, Encoding(feasible.space)
        self._rows = TrialLevels(self._space)
        self._levels = self._rows.of
        feasible.costs.check(feasible.constraints)
        bounded = [constraint.name for constraint in settings.score_constraints]
        self.objectives = objectives_of(
            settings.objectives, settings.direction, feasible.costs.names, bounded
        )
        check_several_scores(self.objectives, settings, warm_start)
        warm = feasible.with_statistics(self._levels(warm_start))
        self.warm_start = [
            replace(trial, statistics=warm.row(i)) for i, trial in enumerate(warm_start)
        ]
        for budget in settings.budgets:
            measure_reach(feasible.within(budget), settings.seed)
        self._reach = measure_reach(feasible, settings.seed)
        self._pool = feasible.sample(settings.pool_size, settings.seed)
        if feasible.costs.is_slow and len(self._pool):
            counted = np.concatenate([self._pool.levels, warm.levels])
            self._feasible = feasible = replace(feasible, costs=feasible.costs.limited_to(counted))
        budgets = [feasible.within(budget) for budget in settings.budgets]
        self._parts = budgets or [feasible]
        if len(self._pool) < settings.batch_size:
            raise SearchError(
                f"batch_size={settings.batch_size} is larger than the pool: the space has only "
                f"{len(self._pool)} candidates that meet the constraints; lower batch_size"
            )
        self._reserves = Reserves(self._pool, settings.seed)
        with_statistics, pretrained = self._with_statistics, lambda: self.plan.pretrained
        self.models = Models(settings, self._encoding, with_statistics, self.known, pretrained)
        self._bounded = BoundedScores(settings, self._encoding, self._levels)
        self._promotion = Promotion(self._encoding, self.objectives, budgets, with_statistics)
        self._stage_one = StageOne(
            self._parts, self._encoding, self._bounded, self._levels, self._pool_within
        )
        self._stage_two = StageTwo(
            settings, self._encoding, self.objectives, self._levels, self._pool_within
        )

    @cached_property
    def _fronts(self) -> Fronts:
        """The choice of candidates if there are several objectives."""
        by_score = models_of_scores(self.objectives, self.models, self.known)
        return Fronts(
            self.objectives,
            self._encoding,
            self._pool,
            self._levels,
            by_score,
            self._stage_two,
            self._bounded,
        )

    @cached_property
    def plan(self) -> Plan:
        """The pool, the ranges of the constrained statistics and the pre-trained encoder."""
        columns = self._encoding.columns_of("architecture")
        pretrained = Pretrained(columns)
        if self._settings.pretrain:
            features = self._encoding.encode(self._pool.levels)
            pretrained = pretrain(features, self._pool.statistics, columns, self._settings.seed)
        return Plan(self._pool, self._reach, pretrained)

    @property
    def worst_costs(self) -> dict[str, float]:
        """The worst value in the pool of each objective that is a cost, by name."""
        worst = self._fronts.worst_gains.tolist()
        pairs = zip(self.objectives.costs, worst, strict=True)
        return {cost.name: gain(value, cost.direction) for cost, value in pairs}

    @property
    def feasible(self) -> FeasibleSpace:
        """The space and the constraints of all candidates."""
        return self._feasible

    def known(self, history: History) -> Known:
        """Returns the trials so far with the scores by which they are compared."""
        settings = self._settings
        is_one = len(self.objectives.scores) == 1 and not settings.score_constraints
        return score_trials(
            history,
            self.warm_start,
            settings.early_stop_threshold if is_one else None,  # a report has one score
            settings.early_stop_over,
            settings.direction,
            settings.rungs,
            len(settings.sizes_of_first_parts(len(history.batches[0]) if len(history) else 0)),
        )

    def model(self, history: History) -> Model | None:
        """Returns the predictor fitted on the batches before the first unfinished one.

        None if they have too few scores; see :class:`Models`.
        """
        return self.models.model(history)

    def propose(
        self,
        history: History,
        count: int,
        stage: str,
        enqueued: Sequence[Trial] = (),
        *,
        avoid_failures: bool = True,
    ) -> list[Trial]:
        """Returns the trials of the next batch: new candidates, and partly trained ones that go on.

        Only with ``rungs`` (numbers of epochs) do candidates train in parts, from rung to rung.

        Args:
            history: Trials so far, some of which may still run.
            count: Number of new candidates, the enqueued ones included.
            stage: ``coarse`` or ``fine``.
            enqueued: Trials of enqueued candidates; the new candidates of the batch begin with
                them, even if they are predicted to fail.
            avoid_failures: Whether candidates that are predicted to run out of memory or time are
                proposed only if there are no others.

        Returns:
            The trials; in ``fine``, ``final_seeds`` for each candidate. An exhausted space gives
            fewer than ``count`` new candidates, ``fine`` without scores only the enqueued ones.
        """
        known, model = self.known(history), self.models.latest(history)
        promoted = self._promotion.trials(history, known, model, stage, count)
        known, count = known.with_running([*promoted, *enqueued]), count - len(enqueued)
        failures = self.models.failures(history) if avoid_failures else None
        chosen = self._with_statistics(enqueued)
        if count and stage == "coarse":
            chosen = chosen.joined(self._coarse(history, known, model, failures, count))
        elif count and known.complete:
            chosen = chosen.joined(self._finalists(history, known, model, failures, count))
        first = len(history.trials) + len(promoted)
        whole = self._whole(known, len(chosen), len(enqueued))
        epochs = [known.epochs_of(stage, is_whole=i in whole) for i in range(len(chosen))]
        new = self._trials(chosen, len(history), first, epochs, model, stage)
        return [*promoted, *replicated(new, self._settings.final_seeds if stage == "fine" else 1)]

    def _coarse(
        self,
        history: History,
        known: Known,
        model: Model | None,
        failures: FailureModel | None,
        count: int,
    ) -> Pool:
        """Returns a batch of stage 1."""
        tried = self._tried(known)
        untried = self._pool.take(unique_rows(self._pool.levels, tried))
        if failures is not None:
            untried = untried.take(~failures.fails(untried))
        if model is not None and isinstance(model.predictor.fitted, Probabilistic):
            random = np.random.default_rng([self._settings.seed, _COARSE, len(history)])
            predictor, part = model.predictor.fitted, self._feasible
            if self.objectives.are_several:
                batch = self._fronts.batch
                chosen = batch(history, known, part, failures, count, tried, random)
            else:
                parts = self._stage_one.batch(known, predictor, failures, count, tried, random)
                chosen = self._joined(parts)
        else:
            names = [cost.name for cost in self.objectives.costs]
            names += [constraint.name for constraint in self._feasible.constraints]
            chosen = batch_without_posterior(
                untried,
                model,
                self._encoding,
                count,
                names[0] if names else None,
                log=bool(self.objectives.costs),
            )
        avoided = any_of(failures, self._bounded.model(known))
        return self._completed(chosen, count, tried, self._score(model, avoided))

    def _joined(self, pools: Sequence[Pool]) -> Pool:
        chosen = self._pool.take(np.zeros(0, dtype=np.int64))
        for pool in pools:
            chosen = chosen.joined(pool)
        return chosen

    def _pool_within(self, part: FeasibleSpace, least: int) -> Pool:
        """Returns the pool's candidates in a part of the space, such as within a budget.

        If there are fewer than ``least``, a new sample of the part is returned instead.
        """
        pool = part.select(self._pool)
        if len(pool) >= least:
            return pool
        measure_reach(part, self._settings.seed)
        return part.sample(least, self._settings.seed)

    def _finalists(
        self,
        history: History,
        known: Known,
        model: Model | None,
        failures: FailureModel | None,
        count: int,
    ) -> Pool:
        """Returns untried or partly trained candidates predicted best, a share for each budget."""
        tried = taken = self._tried(known) - self._promotion.keys(known)
        chosen = self._pool.take(np.zeros(0, dtype=np.int64))
        if self.objectives.are_several:
            part = self._feasible
            chosen = self._fronts.finalists(history, known, part, failures, count, tried)
            return self._completed(chosen, count, tried, self._score(model, failures))
        avoided = any_of(failures, self._bounded.model(known))
        for part, share in shares(self._parts, count):
            finalists = chosen.take(np.zeros(0, dtype=np.int64))
            # A second, wider evolution keeps more candidates, if the first one keeps too few.
            for top_k in (None, self._settings.evolution.top + share):
                if model is not None and len(finalists) < share:
                    evolved = self._stage_two.evolved(known, model, part, top_k, avoided).pool
                    finalists = evolved.take(unique_rows(evolved.levels, taken)[:share])
            score = self._score(model, avoided)
            finalists = self._reserves.complete(finalists, part, share, taken, score)
            taken = taken | set(keys_of(finalists.levels))
            chosen = chosen.joined(finalists)
        return self._completed(chosen, count, tried, score)

    def _completed(
        self, chosen: Pool, count: int, tried: set[bytes], score: fine.ScoreFunction | None
    ) -> Pool:
        """Completes a batch with candidates within any budget, if a share could not be filled."""
        for part in self._parts:
            chosen = self._reserves.complete(chosen, part, count, tried, score)
        return chosen

    def _score(
        self, model: Model | None, avoided: Avoided | None = None
    ) -> fine.ScoreFunction | None:
        """Returns the function from levels to predicted scores, of which only the order counts.

        Candidates that ``avoided`` predicts to fail, or to violate a bound on scores, get lower
        scores than all other candidates. None without a model.
        """
        if model is None:
            return None
        fitted, feasible = model.predictor.fitted, self._feasible

        def score(levels: Levels) -> np.ndarray:
            scores = fitted.predict(self._encoding.encode(levels))
            if avoided is None or not len(levels):
                return scores
            return failing_last(scores, avoided.fails(feasible.with_statistics(levels)))

        return score

    def _trials(
        self,
        chosen: Pool,
        batch: int,
        first: int,
        epochs: Sequence[int | None],
        model: Model | None,
        stage: str,
    ) -> list[Trial]:
        """Returns a trial for each chosen candidate, numbered from ``first`` on."""
        if not len(chosen):
            return []
        ids, configs = self._space.ids(chosen.levels), self._space.configs(chosen.levels)
        self._rows.add(ids, chosen.levels)
        predicted: list[float | None] = [None] * len(chosen)
        if model is not None:
            predicted = model.predictor.predict(self._encoding.encode(chosen.levels)).tolist()
        return [
            Trial(
                ids[i],
                first + i,
                batch,
                configs[i],
                max_epochs=epochs[i],
                statistics=chosen.row(i),
                score_names=self.objectives.score_names,
                predicted=predicted[i],
                stage=stage,
            )
            for i in range(len(chosen))
        ]

    def evolve(
        self,
        history: History,
        constraints: Sequence[Constraint] | None = None,
        top_k: int | None = None,
        drop: Sequence[str] = (),
    ) -> fine.Evolved:
        """Runs stage 2 on predicted scores.

        Args:
            history: Trials so far.
            constraints: Bounds on the candidates, in addition to those of the search; None adds
                none.
            top_k: Number of candidates to return; None: ``evolution.top`` of the settings.
            drop: Statistics whose constraint of the search need not be met.

        Raises:
            SearchError: There are too few scores to predict from, a constraint contradicts another
                one, or a statistic to drop has no constraint.
            InfeasibleError: Too few candidates meet the constraints.
        """
        part = self._feasible.without(drop).with_added_constraints(constraints or ())
        model = self.model(history)
        if model is None:
            raise SearchError("there are too few scores to predict from; run the search first")
        known = self.known(history)
        return self._stage_two.evolved(known, model, part, top_k, self._bounded.model(known))

    def _with_statistics(self, trials: Sequence[Trial]) -> Pool:
        return self._feasible.with_statistics(self._levels(trials))

    def _whole(self, known: Known, count: int, enqueued: int) -> set[int]:
        """Returns the indices of the new candidates that train in full at once despite rungs.

        They are the first candidates of each budget's share, which have the highest expected
        improvement if the candidates were chosen by it. Enqueued candidates are not among them.

        Args:
            known: Trials so far.
            count: Number of new candidates, enqueued ones included.
            enqueued: Number of enqueued candidates, which come first.
        """
        earlier = 0 if known.ladder is None else known.ladder.in_full
        places = whole_trainings(self._settings.rungs, count, earlier)
        starts, start = [], enqueued
        for _, share in shares(self._parts, count - enqueued):
            starts.append(range(start, start + share))
            start += share
        return set(in_turns(starts)[:places])

    def _tried(self, known: Known) -> set[bytes]:
        return set(keys_of(self._levels(known.trials)))
