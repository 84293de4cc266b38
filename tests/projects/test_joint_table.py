"""The table of real trainings: whole, priced as the zoo prices, and less noisy than it is wide."""

from __future__ import annotations

import numpy as np
import pytest

from fbnetv3.arch import count_cost
from fbnetv3.search import EvolutionSettings, JointNAS, SearchError, Trial
from projects.search_quality import factorial, joint_table, make_table


@pytest.fixture(scope="module")
def table() -> joint_table.Table:
    if not joint_table.SCORES.exists():
        pytest.skip(f"{joint_table.SCORES} has not been made; see make_table.py")
    return joint_table.load_table(joint_table.SCORES)


@pytest.fixture(scope="module")
def problem(table) -> joint_table.JointTable:
    return joint_table.JointTable(table)


def trial_of(problem, config, max_epochs=None) -> Trial:
    return Trial(id="", number=0, batch=0, config=config, max_epochs=max_epochs)


def test_every_candidate_of_the_space_is_in_it(table):
    assert len(table.levels) >= 2000
    assert table.right.shape == table.losses.shape == (len(table.right), len(table.levels), 4)
    # 1 of depth 1, 2 of depth 2: the expansion of later layers matters only there
    product = int(np.prod(table.space.sizes))
    assert len(table.levels) == product * 3 // 4
    assert joint_table.SCORES.stat().st_size < 1_000_000


def test_scores_are_those_of_networks_that_learned(table):
    assert (table.right <= table.asked).all()
    assert np.median(table.top1[:, :, -1]) > 2 * 100 / joint_table.NUM_CLASSES
    assert np.median(table.scores[:, :, -1]) > -np.log(joint_table.NUM_CLASSES)
    # the curve tells of the end: what early stopping lives on
    first, last = table.scores[0, :, 0], table.scores[0, :, -1]
    assert np.corrcoef(first, last)[0, 1] > 0.3


def test_costs_are_those_of_the_built_networks(table, problem):
    chosen = np.random.default_rng(0).choice(len(table.levels), 30, replace=False)
    configs = table.space.configs(table.levels[chosen])
    found = problem.statistics(configs)
    for i, config in enumerate(configs):
        cost = count_cost(joint_table.architectures().arch(config, joint_table.NUM_CLASSES))
        assert found["macs"][i] == table.macs[chosen[i]] == cost.macs
        assert (found["params"][i], found["activations"][i]) == (cost.params, cost.activations)


def test_the_truth_errs_by_less_than_a_third_of_what_good_candidates_differ_by(table):
    """Of what the table says of a candidate, against trainings with seeds that it has not seen."""
    truth, again = table.truth, table.noise_scores
    top = truth >= np.quantile(truth, 0.75)
    inside = top[table.noise_points]
    assert inside.sum() >= 10
    own_noise = table.noise**2 / again.shape[1]
    squares = (truth[table.noise_points] - again.mean(axis=1))[inside] ** 2
    error = np.sqrt(max(0.0, squares.mean() - own_noise))
    share = error / truth[top].std(ddof=1)
    assert share == pytest.approx(0.31, abs=0.01)
    assert share < 1 / 3


def test_an_evaluation_reports_the_real_curve(table, problem):
    config = table.space.configs(table.levels[777:778])[0]
    whole = trial_of(problem, config)
    assert problem.evaluate(whole) == table.scores[0, 777, -1]
    assert list(whole.reports) == [1, 2, 3, 4]
    short = trial_of(problem, config, max_epochs=2)
    assert problem.evaluate(short) == table.scores[0, 777, 1] == short.reports[2]


def test_what_is_not_in_the_space_is_refused(table, problem):
    config = table.space.configs(table.levels[:1])[0]
    with pytest.raises(SearchError, match="log2_lr"):
        problem.true_score([config | {"log2_lr": -2.4}])


def test_a_candidate_does_not_depend_on_inactive_variables(table, problem):
    shallow = table.space.configs(table.levels[table.levels[:, 1] == 0][:1])[0]
    assert shallow["depth"] == 1
    both = [shallow | {"expansion_rest": e} for e in (1, 2)]
    assert len(set(problem.points(both))) == 1


def test_trainings_go_on_from_the_table_itself(table, tmp_path):
    make_table.unpack(tmp_path / "trainings.log")
    log = make_table.Log(tmp_path / "trainings.log")
    right, losses = make_table.whole_passes(log)
    assert (right == table.right).all()
    assert (losses == table.losses).all()
    assert len(log.rows()) == right[..., 0].size + table.noise_losses[..., 0].size


def test_a_search_of_it_beats_chance(table, problem):
    search = JointNAS(
        table.space,
        statistics=problem.statistics,
        batch_size=24,
        iterations=3,
        pool_size=1000,
        finalists=4,
        evolution=EvolutionSettings(best=10, random=10, children=6, top=10),
        early_stop_threshold=None,
        seed=0,
    )
    result = search.run(problem.evaluate)
    found = problem.true_score([result.best.config])[0]
    # 72 random candidates reach this on average; the winner was chosen by one noisy training
    chance = [table.truth[picks].max() for picks in _picks(len(table.levels), 72)]
    assert found > np.mean(chance)
    assert result.best.score == problem.curve(result.best.config)[-1]


def _picks(points: int, count: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.choice(points, count, replace=False) for _ in range(200)]


class TestFactorial:
    shape = (3, 2, 4, 5, 2)

    def table(self) -> np.ndarray:
        """Main effects and one interaction, which other axes know nothing of."""
        a, b, c, d, _ = np.meshgrid(*map(np.arange, self.shape), indexing="ij")
        return 2.0 * a + (d - 2.0) ** 2 + 3.0 * b * c

    def test_effects_add_up_to_the_table(self):
        table = np.random.default_rng(0).standard_normal(self.shape)
        parts = list(factorial.effects(table))
        assert np.allclose(sum(part for _, part, _ in parts), table)
        assert sum(df for _, _, df in parts) == table.size
        assert len(parts) == 2 ** len(self.shape)

    def test_without_noise_nothing_changes(self):
        assert np.allclose(factorial.denoised(self.table(), 0.0), self.table())

    def test_noise_goes_and_signal_stays(self):
        noise = np.random.default_rng(0).standard_normal(self.shape)
        found = factorial.denoised(self.table() + noise, 1.0)
        assert np.sqrt(((found - self.table()) ** 2).mean()) < 0.5
        assert factorial.noise_variance(self.table() + noise, 3) == pytest.approx(1.0, abs=0.2)
