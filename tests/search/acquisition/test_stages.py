"""The two stages without a predictor: batches from bins, early stopping, evolution."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from fbnetv3.search import Constraint, EvolutionSettings, SearchError
from fbnetv3.search.acquisition.coarse import best_by_bin, bins_of, paper_batch, spread_out
from fbnetv3.search.acquisition.early_stopping import find_early_stop
from fbnetv3.search.acquisition.fine import adaptive_rates, evolve, parents_fitness
from fbnetv3.search.space.constraints import Costs
from fbnetv3.search.space.encoding import Encoding
from fbnetv3.search.space.feasible import FeasibleSpace
from fbnetv3.search.space.genetic import crossover, mutate
from fbnetv3.search.space.pool import Pool
from fbnetv3.search.space.space import IntRange, SearchSpace, unique_rows
from tests.search import problem

SPACE = problem.space()
FEASIBLE = FeasibleSpace(Costs(SPACE, problem.statistics))


def _pool(size: int = 100, upper: float = problem.UPPER) -> Pool:
    return FEASIBLE.with_constraints([Constraint("macs", upper=upper)]).sample(size, seed=2)


def _quality(levels: np.ndarray) -> np.ndarray:
    return np.array([problem.quality(c) for c in SPACE.configs(levels)])


def test_the_papers_batch_has_the_best_of_each_bin() -> None:
    pool = _pool(500)
    scores = np.random.default_rng(0).standard_normal(500)
    features = Encoding(SPACE).encode(pool.levels)
    batch = paper_batch(pool, features, scores, 8, "macs")
    bins = bins_of(pool.statistics["macs"], 8)
    assert sorted(bins[batch]) == list(range(8))
    for i in batch:
        assert scores[i] == scores[bins == bins[i]].max()


def test_empty_bins_are_filled_in_turns() -> None:
    bins = np.array([0, 0, 0, 5, 5, 5])
    scores = np.array([9.0, 8.0, 7.0, 3.0, 2.0, 1.0])
    assert sorted(best_by_bin(scores, bins, 4)) == [0, 1, 3, 4]


def test_without_a_statistic_the_batch_is_spread_out() -> None:
    pool = _pool(500)
    features = Encoding(SPACE).encode(pool.levels)
    scores = -np.square(features - features[0]).sum(1)
    batch = paper_batch(pool, features, scores, 8, None)
    greedy = np.argsort(-scores)[:8]
    assert len(set(batch)) == 8
    assert features[batch].std(0).sum() > 1.2 * features[greedy].std(0).sum()


def test_spread_out_takes_the_ends_first() -> None:
    line = np.linspace(0, 1, 11, dtype=np.float32)[:, None]
    assert spread_out(line, 3).tolist() == [0, 10, 5]


def _reports(*curves: list[float]) -> list[dict[int, float]]:
    return [{i + 1: s for i, s in enumerate(curve)} for curve in curves]


def test_the_epoch_from_which_the_ranking_stays() -> None:
    # the ranking is right at epoch 1 by chance, wrong at 2, and right from 3 on
    curves = _reports([1, 3, 1, 1, 1], [2, 2, 2, 2, 2], [3, 1, 3, 3, 3], [4, 0, 4, 4, 4])
    stop = find_early_stop(curves, 0.92)
    assert stop is not None
    assert stop.epoch == 3
    assert stop.correlation == pytest.approx([1, -1, 1, 1, 1])


def test_only_the_better_half_is_ranked() -> None:
    # the better half is above the worse one from epoch 1 on, but ranked right only at epoch 2
    better = _reports([35, 31], [34, 32], [33, 33], [32, 34], [31, 35], [30, 36])
    worse = _reports(*([i, i] for i in range(6)))
    stop = find_early_stop([*better, *worse], 0.7)
    assert stop is not None
    assert stop.correlation == pytest.approx([-1, 1])
    assert stop.epoch is None
    # of fewer than twelve candidates, six are ranked instead of half of them
    fewer = find_early_stop([*better[:4], *worse[:4]], 0.7)
    assert fewer is not None
    assert fewer.correlation[0] == pytest.approx(3 / 7)


def test_over_all_candidates_the_ranking_is_final_earlier() -> None:
    better = _reports([35, 31], [34, 32], [33, 33], [32, 34], [31, 35], [30, 36])
    worse = _reports(*([i, i] for i in range(6)))
    stop = find_early_stop([*better, *worse], 0.7, "all")
    assert stop is not None
    assert stop.epoch == 1
    early, final = [*range(35, 29, -1), *range(6)], [*range(31, 37), *range(6)]
    assert stop.correlation == pytest.approx([spearmanr(early, final).statistic, 1])


def test_no_early_stop_without_epochs_or_before_the_last_one() -> None:
    assert find_early_stop([{}, {}, {}], 0.9) is None
    assert find_early_stop(_reports([1], [2], [3]), 0.9) is None
    late = find_early_stop(_reports([3, 1], [2, 2], [1, 3]), 0.9)
    assert late is not None
    assert late.epoch is None


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [((0, 1, 2, 3), 1), ((0, 2, 5), 2), ((0, 1), None), ((0, 3), None), ((1, 2, 3), 1)],
)
def test_epoch_0_is_no_early_stop(epochs: tuple[int, ...], expected: int | None) -> None:
    stop = find_early_stop([dict.fromkeys(epochs, float(i)) for i in range(8)], 0.9)
    assert stop is not None
    assert stop.epochs == list(epochs)
    assert stop.epoch == expected


def test_rates_fall_from_the_mean_score_to_the_best() -> None:
    scores = np.array([0.0, 1.0, 2.0, 5.0])  # mean 2
    crossing, mutation = adaptive_rates(scores, scores, variables=100)
    assert crossing.tolist() == [1, 1, 1, 0]
    assert mutation.tolist() == [0.5, 0.5, 0.5, 0.01]
    half, _ = adaptive_rates(scores, np.array([3.5]), variables=100)
    assert half[0] == pytest.approx(0.5)


def test_the_better_parent_sets_the_crossover_rate() -> None:
    scores = np.array([0.0, 1.0, 2.0, 5.0])  # mean 2
    mothers, fathers = np.array([0, 1, 3, 2]), np.array([3, 2, 0, 0])
    for of, rates in {"better_parent": [0, 1, 0, 1], "mother": [1, 1, 0, 1]}.items():
        fitness = parents_fitness(scores, mothers, fathers, of)
        assert adaptive_rates(scores, fitness, variables=100)[0].tolist() == rates


def test_the_rule_of_the_crossover_rate_changes_an_evolution() -> None:
    runs = [
        evolve(
            FEASIBLE,
            _pool(),
            _quality,
            EvolutionSettings(crossover_fitness=rule),
            np.random.default_rng(0),
        )
        for rule in ("mother", "better_parent")
    ]
    assert runs[0].pool.levels.tolist() != runs[1].pool.levels.tolist()


@pytest.mark.parametrize("redraw", [False, True])
def test_infeasible_children_are_redrawn(redraw: bool) -> None:
    feasible, sizes = FEASIBLE.with_constraints([Constraint("macs", 100.0, 200.0)]), []

    def score(levels: np.ndarray) -> np.ndarray:
        sizes.append(len(levels))
        assert feasible.are_feasible(levels).all()
        return _quality(levels)

    first = feasible.sample(20, seed=2)
    settings = EvolutionSettings(redraw=redraw, max_generations=1)
    evolve(feasible, first, score, settings, np.random.default_rng(0))
    assert (sizes[1] == 20 * settings.children) == redraw
    assert sizes[1] <= 20 * settings.children


def test_redrawing_ends_where_the_space_has_no_further_candidate() -> None:
    space = SearchSpace([IntRange("x", 0, 4)])
    feasible = FeasibleSpace(Costs(space, None))
    first = feasible.with_statistics(np.array([[0], [1]]))
    settings = EvolutionSettings(redraw=True, max_generations=1)
    evolved = evolve(feasible, first, lambda x: x[:, 0] * 1.0, settings, np.random.default_rng(0))
    assert sorted(evolved.pool.levels[:, 0].tolist()) == [0, 1, 2, 3, 4]


@given(st.integers(0, 2**32), st.floats(0, 1))
def test_mutants_stay_in_the_space(seed: int, rate: float) -> None:
    random = np.random.default_rng(seed)
    levels = SPACE.canonical(random.integers(0, SPACE.sizes, (50, len(SPACE))))
    mutants = mutate(SPACE, levels, rate, random)
    assert (mutants >= 0).all()
    assert (mutants < SPACE.sizes).all()
    assert (SPACE.canonical(mutants) == mutants).all()


def test_mutation_changes_as_many_variables_as_its_rate_says() -> None:
    random = np.random.default_rng(0)
    levels = SPACE.canonical(random.integers(0, SPACE.sizes, (4000, len(SPACE))))
    # without the kernel, which cannot change where it is inactive
    kept = [i for i, name in enumerate(SPACE.names) if name != "kernel"]
    changed = (mutate(SPACE, levels, 0.25, random) != levels)[:, kept].mean(0)
    assert np.allclose(changed, 0.25, atol=0.03)


def test_mutation_reaches_the_ends_of_a_range() -> None:
    random = np.random.default_rng(0)
    levels = SPACE.canonical(random.integers(0, SPACE.sizes, (3000, len(SPACE))))
    mutants = mutate(SPACE, levels, 1.0, random)
    lr = mutants[:, SPACE.names.index("lr")]
    assert lr.min() == 0
    assert lr.max() == SPACE["lr"].size - 1


def test_local_steps_are_of_all_sizes() -> None:
    random = np.random.default_rng(0)
    levels = np.repeat(SPACE.canonical(SPACE.sizes[None] // 2), 4000, axis=0)
    lr = SPACE.names.index("lr")
    moves = np.abs(mutate(SPACE, levels, 1.0, random)[:, lr] - levels[:, lr])
    shares = moves / SPACE["lr"].size
    assert (shares < 0.01).mean() > 0.1
    assert (shares > 0.1).mean() > 0.1


def test_crossover_takes_each_variable_from_a_parent() -> None:
    random = np.random.default_rng(0)
    mothers = np.zeros((1000, 6), dtype=np.int64)
    children = crossover(mothers, mothers + 1, 0.5, random)
    assert set(np.unique(children)) == {0, 1}
    assert children.mean() == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("upper", [200.0, 600.0])
def test_evolution_only_gains_and_keeps_the_constraint(upper: float) -> None:
    feasible = FEASIBLE.with_constraints([Constraint("macs", upper=upper)])
    settings = EvolutionSettings(patience=5)
    first = _pool(100, upper)
    evolved = evolve(feasible, first, _quality, settings, np.random.default_rng(0))
    assert evolved.history == sorted(evolved.history)
    assert evolved.history[0] == _quality(first.levels).max()
    assert evolved.scores[0] == evolved.history[-1] == _quality(evolved.pool.levels).max()
    assert feasible.are_feasible(evolved.pool.levels).all()
    assert len(unique_rows(evolved.pool.levels)) == len(evolved.pool) == settings.top
    # the optimum is log(upper) / 2, up to a step of the widths
    assert evolved.scores[0] > np.log(upper) / 2 - 0.1


def test_evolution_is_seeded() -> None:
    runs = [
        evolve(
            FEASIBLE, _pool(), _quality, problem.evolution_settings(), np.random.default_rng(seed)
        )
        for seed in (1, 1, 2)
    ]
    assert (runs[0].pool.levels == runs[1].pool.levels).all()
    assert (runs[0].pool.levels != runs[2].pool.levels).any()


def test_wrong_evolution_settings_are_refused() -> None:
    with pytest.raises(SearchError, match="children=0"):
        EvolutionSettings(children=0)
    with pytest.raises(SearchError, match="one of them must be at least 1"):
        EvolutionSettings(best=0, random=0)
    with pytest.raises(SearchError, match="crossover_fitness='father' is unknown; allowed: mother"):
        EvolutionSettings(crossover_fitness="father")
    with pytest.raises(SearchError, match="redraw"):
        EvolutionSettings(redraw="maybe")  # type: ignore[arg-type]
