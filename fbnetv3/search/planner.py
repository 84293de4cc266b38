"""The decisions of a search as functions of its history: pool, model, next batch, evolution."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from fbnetv3.search.acquisition import coarse, fine
from fbnetv3.search.acquisition.batch import Probabilistic, next_batch
from fbnetv3.search.acquisition.candidates import Candidates
from fbnetv3.search.acquisition.reserves import Reserves
from fbnetv3.search.errors import SearchError
from fbnetv3.search.history import History, Known, score_trials
from fbnetv3.search.predictors.encoder import Pretrained, pretrain
from fbnetv3.search.predictors.networks import Floats
from fbnetv3.search.predictors.predictor import fit_function
from fbnetv3.search.predictors.report_card import ReportCard, make_card
from fbnetv3.search.predictors.score_unit import ScorePredictor
from fbnetv3.search.records import StoredCard
from fbnetv3.search.settings import SearchSettings
from fbnetv3.search.space.constraints import Constraint
from fbnetv3.search.space.encoding import Encoding
from fbnetv3.search.space.feasible import FeasibleSpace
from fbnetv3.search.space.parameters import Levels
from fbnetv3.search.space.pool import Pool
from fbnetv3.search.space.reach import Reach, measure_reach
from fbnetv3.search.space.space import keys_of, unique_rows
from fbnetv3.search.trial import Trial

_FEWEST_LABELS = 5
_ELITE = 32
_COARSE, _FINE, _FIT = 21, 22, 23  # these separate the random streams of one seed


@dataclass(frozen=True)
class Plan:
    """The state of a search before anything is trained.

    Attributes:
        pool: Quasi Monte-Carlo sample of the feasible candidates.
        reach: Range of each constrained statistic, by name.
        pretrained: The predictor's encoder, trained on the pool's statistics.
    """

    pool: Pool
    reach: dict[str, Reach]
    pretrained: Pretrained


@dataclass(frozen=True)
class Model:
    """A fitted predictor and its report card."""

    predictor: ScorePredictor
    card: ReportCard


class Planner:
    """Decides what a search does next. Its methods depend on their arguments alone.

    Args:
        feasible: Space and constraints.
        settings: Settings of the search.
        warm_start: Complete trials of an earlier search.

    Attributes:
        warm_start: These trials with their statistics; some may violate the constraints.

    Raises:
        InfeasibleError: Too few candidates meet the constraints, or a budget.
        SearchError: The feasible space has fewer candidates than a batch.
    """

    def __init__(
        self, feasible: FeasibleSpace, settings: SearchSettings, warm_start: Sequence[Trial] = ()
    ) -> None:
        self._feasible, self._settings = feasible, settings
        self._space, self._encoding = feasible.space, Encoding(feasible.space)
        self._rows: dict[str, Levels] = {}  # levels by trial id
        feasible.costs.check(feasible.constraints)
        warm = feasible.price(self._levels(warm_start))
        self.warm_start = [
            replace(trial, statistics=warm.row(i)) for i, trial in enumerate(warm_start)
        ]
        self._warm_start_is_feasible = len(feasible.select(warm)) == len(warm)
        self._budgets = [feasible.within(budget) for budget in settings.budgets]
        for budget in self._budgets:
            measure_reach(budget, settings.seed)
        self._reach = measure_reach(feasible, settings.seed)
        self._pool = feasible.sample(settings.pool_size, settings.seed)
        if len(self._pool) < settings.batch_size:
            raise SearchError(
                f"batch_size={settings.batch_size} is larger than the pool: the space has only "
                f"{len(self._pool)} candidates that meet the constraints; lower batch_size"
            )
        self._reserves = Reserves(self._pool, settings.seed)
        self._models: dict[int, Model | None] = {}  # by number of batches

    @cached_property
    def plan(self) -> Plan:
        """The pool, the reach of the constraints and the pre-trained encoder."""
        columns = self._encoding.columns_of("architecture")
        pretrained = Pretrained(columns)
        if self._settings.pretrain:
            features = self._encoding.encode(self._pool.levels)
            pretrained = pretrain(features, self._pool.statistics, columns, self._settings.seed)
        return Plan(self._pool, self._reach, pretrained)

    def known(self, history: History) -> Known:
        """Returns the trials so far with the scores by which they are compared."""
        settings = self._settings
        return score_trials(
            history, self.warm_start, settings.early_stop_threshold, settings.early_stop_over
        )

    def model(self, history: History) -> Model | None:
        """Returns the predictor fitted on the leading finished batches.

        Later results are left out, so that the predictor does not depend on when it is asked for.

        Returns:
            The model; None where there are too few scores.
        """
        count = history.finished
        if count not in self._models:
            self._models[count] = self._fitted(history.head(count))
        return self._models[count]

    def cards(self, history: History, stored: Mapping[int, StoredCard]) -> dict[int, ReportCard]:
        """Returns the report card of the predictor after each finished batch, by their number.

        Args:
            history: Trials so far.
            stored: Cards of earlier processes by number of batches, which are not computed again.
        """
        cards = {}
        for end in range(1, history.finished + 1):
            head = history.head(end)
            if end in stored and end not in self._models:
                cards[end] = self._restored(stored[end], head)
                continue
            model = self.model(head)
            if model is not None:
                cards[end] = model.card
        return cards

    def _restored(self, stored: StoredCard, history: History) -> ReportCard:
        """Returns a stored card with the true scores, which the trials have."""
        known = self.known(history)
        scores = [known.scores[t.number] for t in known.complete]
        is_whole = len(stored.held_out) == len(scores)
        return replace(
            stored.card,
            batch=_pairs_of_last_batch(history, known),
            held_out=list(zip(stored.held_out, scores, strict=True)) if is_whole else [],
        )

    def _fitted(self, history: History) -> Model | None:
        """Fits the predictor on every score of a history."""
        known = self.known(history)
        complete = known.complete
        if len(complete) < _FEWEST_LABELS:
            return None
        features = self._encoding.encode(self._levels(complete))
        labels: Floats = np.array([known.scores[t.number] for t in complete], dtype=np.float64)
        stream = np.random.default_rng([self._settings.seed, _FIT, len(history)])
        fit = fit_function(self._settings.predictor)
        seed = int(stream.integers(2**31))
        predictor = ScorePredictor(fit, features, labels, self.plan.pretrained, seed)
        last_batch = _pairs_of_last_batch(history, known)
        return Model(predictor, make_card(predictor.cross_validated(), labels, last_batch))

    def propose(self, history: History, count: int, stage: str) -> list[Trial]:
        """Returns the next batch of trials.

        Args:
            history: Trials so far, some of which may still run.
            count: Number of trials.
            stage: ``coarse`` or ``fine``.

        Returns:
            Trials with new candidates; fewer than ``count`` where the space is exhausted. No
            finalists where no trial has a score.
        """
        known = self.known(history)
        if history.finished == len(history):
            model = self.model(history)
        else:
            model = self._fitted(history)
        if stage == "coarse":
            chosen = self._coarse(history, known, model, count)
        elif known.complete:
            chosen = self._finalists(history, known, model, count)
        else:
            return []
        return self._trials(chosen, history, known, model, stage)

    def _coarse(self, history: History, known: Known, model: Model | None, count: int) -> Pool:
        """Returns a batch of stage 1."""
        tried = self._tried(known)
        untried = self._pool.take(unique_rows(self._pool.levels, tried))
        constraints = self._feasible.constraints
        statistic = constraints[0].name if constraints else None
        if model is not None and isinstance(model.predictor.fitted, Probabilistic):
            random = np.random.default_rng([self._settings.seed, _COARSE, len(history)])
            chosen = self._by_budget(known, model.predictor.fitted, count, tried, random)
            return self._completed(chosen, count, tried, model)
        chosen = untried
        if len(untried) and model is None:
            chosen = untried.take(coarse.first_batch(untried, count, statistic))
        elif len(untried) and model is not None:
            features = self._encoding.encode(untried.levels)
            scores = model.predictor.fitted.predict(features)
            chosen = untried.take(coarse.paper_batch(untried, features, scores, count, statistic))
        return self._completed(chosen, count, tried, model)

    def _by_budget(
        self,
        known: Known,
        predictor: Probabilistic,
        count: int,
        tried: set[bytes],
        random: np.random.Generator,
    ) -> Pool:
        """Returns a batch with a share for each budget, which counts earlier shares as running."""
        pending, ranked = self._levels(known.running), self._levels(known.ranked)
        chosen = self._pool.take(np.zeros(0, dtype=np.int64))
        for part, share in self._shares(count):
            trained, best = ranked, None
            if self._budgets or not self._warm_start_is_feasible:
                mask = part.meets(ranked)
                trained = ranked[mask]
                means = predictor.gp.mean(self._encoding.encode(ranked).astype(np.float64))
                # where nothing was trained in this part, any score there is an improvement
                best = float(means[mask].max() if mask.any() else means.min())
            pool = self._pool_within(part, share)
            candidates = Candidates(part, self._encoding, pool, trained[:_ELITE])
            batch = next_batch(candidates, predictor, share, tried, random, pending, best)
            tried = tried | set(keys_of(batch.levels))
            pending = np.concatenate([pending, batch.levels])
            chosen = chosen.joined(batch)
        return chosen

    def _shares(self, count: int) -> Iterator[tuple[FeasibleSpace, int]]:
        """Divides a number of candidates evenly among the budgets."""
        parts = self._budgets or [self._feasible]
        least, rest = divmod(count, len(parts))
        for i, part in enumerate(parts):
            share = least + (i < rest)
            if share:
                yield part, share

    def _pool_within(self, part: FeasibleSpace, least: int) -> Pool:
        """Returns the pool's candidates in a part of the space, or a new pool of ``least``."""
        pool = part.select(self._pool)
        if len(pool) >= least:
            return pool
        measure_reach(part, self._settings.seed)
        return part.sample(least, self._settings.seed)

    def _finalists(self, history: History, known: Known, model: Model | None, count: int) -> Pool:
        """Returns the best untried candidates of stage 2, with a share for each budget."""
        tried = taken = self._tried(known)
        chosen = self._pool.take(np.zeros(0, dtype=np.int64))
        for part, share in self._shares(count):
            finalists = chosen.take(np.zeros(0, dtype=np.int64))
            # A second, wider evolution keeps more candidates, if the first one keeps too few.
            for top_k in (None, self._settings.evolution.top + share):
                if model is not None and len(finalists) < share:
                    evolved = self.evolve(history, part.constraints, top_k).pool
                    finalists = evolved.take(unique_rows(evolved.levels, taken)[:share])
            score = self._score(model)
            finalists = self._reserves.complete(finalists, part, share, taken, score)
            taken = taken | set(keys_of(finalists.levels))
            chosen = chosen.joined(finalists)
        return self._completed(chosen, count, tried, model)

    def _completed(self, chosen: Pool, count: int, tried: set[bytes], model: Model | None) -> Pool:
        """Adds candidates within any budget, where the share of a budget could not be filled."""
        for part in self._budgets or [self._feasible]:
            chosen = self._reserves.complete(chosen, part, count, tried, self._score(model))
        return chosen

    def _score(self, model: Model | None) -> fine.ScoreFunction | None:
        """Returns the predictor's function from levels to scores, in its own unit."""
        if model is None:
            return None
        fitted = model.predictor.fitted
        return lambda levels: fitted.predict(self._encoding.encode(levels))

    def _trials(
        self, chosen: Pool, history: History, known: Known, model: Model | None, stage: str
    ) -> list[Trial]:
        """Returns a trial for each chosen candidate."""
        if not len(chosen):
            return []
        ids, configs = self._space.ids(chosen.levels), self._space.configs(chosen.levels)
        self._rows |= zip(ids, chosen.levels, strict=True)
        predicted: list[float | None] = [None] * len(chosen)
        if model is not None:
            predicted = model.predictor.predict(self._encoding.encode(chosen.levels)).tolist()
        first = len(history.trials)
        return [
            Trial(
                ids[i],
                first + i,
                len(history),
                configs[i],
                max_epochs=known.epoch,
                statistics=chosen.row(i),
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
            constraints: Bounds on the candidates, in addition to those of the search; None: no
                further bounds.
            top_k: Number of candidates to return; None: ``evolution.top`` of the settings.
            drop: Statistics whose constraint of the search is not to be met.

        Raises:
            SearchError: There are too few scores to predict from, or a constraint contradicts
                another one.
            InfeasibleError: Too few candidates meet the constraints.
        """
        part = self._feasible.without(drop).under_also(constraints or ())
        model = self.model(history)
        if model is None:
            raise SearchError("there are too few scores to predict from; run the search first")
        predictor, settings = model.predictor, self._settings.evolution
        if top_k is not None and top_k > settings.top:
            settings = replace(settings, top=top_k)  # never fewer: a generation needs breadth
        evolved = fine.evolve(
            part,
            self._first_generation(self.known(history), part, settings),
            lambda levels: predictor.fitted.predict(self._encoding.encode(levels)),
            settings,
            np.random.default_rng([self._settings.seed, _FINE]),
        )
        to_scores = predictor.unit.to_scores
        best_by_generation = to_scores(np.array(evolved.history)).tolist()
        in_scores = replace(evolved, scores=to_scores(evolved.scores), history=best_by_generation)
        return in_scores.head(settings.top if top_k is None else top_k)

    def _first_generation(
        self, known: Known, part: FeasibleSpace, settings: fine.EvolutionSettings
    ) -> Pool:
        """Returns the p best candidates trained so far and q random ones."""
        trained = part.select(part.price(self._levels(known.ranked)))
        best = trained.take(np.arange(min(settings.best, len(trained))))
        count = settings.random + settings.best - len(best)
        pool = self._pool_within(part, count)
        random = np.random.default_rng([self._settings.seed, _FINE, 1])
        generation = best.joined(pool.take(random.permutation(len(pool))[:count]))
        return generation.take(unique_rows(generation.levels))

    def _levels(self, trials: Sequence[Trial]) -> Levels:
        """Returns levels, (trials, variables); each config is converted once."""
        new = [t for t in trials if t.id not in self._rows]
        if new:
            levels = self._space.levels([t.config for t in new])
            self._rows |= zip((t.id for t in new), levels, strict=True)
        rows = [self._rows[t.id] for t in trials]
        return np.array(rows, dtype=np.int64).reshape(len(rows), len(self._space))

    def _tried(self, known: Known) -> set[bytes]:
        return set(keys_of(self._levels(known.trials)))


def _pairs_of_last_batch(history: History, known: Known) -> list[tuple[float, float]]:
    """Returns the predicted and the true score of each trial of the last batch that has both."""
    return [
        (t.predicted, known.scores[t.number])
        for t in (history.batches[-1] if len(history) else [])
        if t.predicted is not None and t.number in known.scores
    ]
