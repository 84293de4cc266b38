"""The table of real trainings: complete, with correct costs, and precise enough for searches."""

from __future__ import annotations

import numpy as np
import pytest

from fbnetv3.arch import count_cost
from fbnetv3.search import EvolutionSettings, JointNAS, SearchError, Trial
from projects.search_quality import factorial, joint_table, make_table


@pytest.fixture(scope="module")
def table() -> joint_table.Table:
    if not joint_table.SCORES.exists():
        pytest.skip(f"{joint_table.SCORES} does not exist; make it with make_table.py")
    return joint_table.load_table(joint_table.SCORES)


@pytest.fixture(scope="module")
def problem(table) -> joint_table.JointTable:
    return joint_table.JointTable(table)


def trial_of(config, max_epochs=None) -> Trial:
    return Trial(id="", number=0, batch=0, config=config, max_epochs=max_epochs)


def test_the_table_has_every_candidate_of_the_space(table):
    assert len(table.levels) >= 2000
    assert table.right.shape == table.losses.shape == (len(table.right), len(table.levels), 4)
    # the expansion of later layers has two values at depth 2, and no effect at depth 1
    product = int(np.prod(table.space.sizes))
    assert len(table.levels) == product * 3 // 4
    assert joint_table.SCORES.stat().st_size < 1_000_000


def test_the_networks_have_learned(table):
    assert (table.right <= table.asked).all()
    assert np.median(table.top1[:, :, -1]) > 2 * 100 / joint_table.NUM_CLASSES
    assert np.median(table.scores[:, :, -1]) > -np.log(joint_table.NUM_CLASSES)
    # early stopping needs early scores that are correlated with the final ones
    first, last = table.scores[0, :, 0], table.scores[0, :, -1]
    assert np.corrcoef(first, last)[0, 1] > 0.3


def test_costs_are_those_of_the_built_networks(table, problem):
    chosen = np.random.default_rng(0).choice(len(table.levels), 30, replace=False)
    configs = table.space.configs(table.levels[chosen])
    costs = problem.statistics(configs)
    for i, config in enumerate(configs):
        expected = count_cost(joint_table.architectures().arch(config, joint_table.NUM_CLASSES))
        assert costs["macs"][i] == table.macs[chosen[i]] == expected.macs
        assert costs["params"][i] == expected.params
        assert costs["activations"][i] == expected.activations


def test_the_error_of_true_scores_is_below_a_third_of_their_spread_among_good_candidates(table):
    """The error is measured on trainings with seeds that are not in the table."""
    truth, new_scores = table.truth, table.noise_scores
    top = truth >= np.quantile(truth, 0.75)
    inside = top[table.noise_points]
    assert inside.sum() >= 10
    noise_of_means = table.noise**2 / new_scores.shape[1]
    squares = (truth[table.noise_points] - new_scores.mean(axis=1))[inside] ** 2
    error = np.sqrt(max(0.0, squares.mean() - noise_of_means))
    ratio = error / truth[top].std(ddof=1)
    assert ratio == pytest.approx(0.31, abs=0.01)
    assert ratio < 1 / 3


def test_an_evaluation_reports_the_curve_of_a_training(table, problem):
    config = table.space.configs(table.levels[777:778])[0]
    whole = trial_of(config)
    assert problem.evaluate(whole) == table.scores[0, 777, -1]
    assert list(whole.reports) == [1, 2, 3, 4]
    short = trial_of(config, max_epochs=2)
    assert problem.evaluate(short) == table.scores[0, 777, 1] == short.reports[2]


def test_a_config_outside_the_space_is_an_error(table, problem):
    config = table.space.configs(table.levels[:1])[0]
    with pytest.raises(SearchError, match="log2_lr"):
        problem.true_score([config | {"log2_lr": -2.4}])


def test_a_candidate_does_not_depend_on_inactive_variables(table, problem):
    shallow = table.space.configs(table.levels[table.levels[:, 1] == 0][:1])[0]
    assert shallow["depth"] == 1
    configs = [shallow | {"expansion_rest": e} for e in (1, 2)]
    assert len(set(problem.points(configs))) == 1


def test_trainings_continue_from_the_table(table, tmp_path):
    make_table.unpack(tmp_path / "trainings.log")
    log = make_table.Log(tmp_path / "trainings.log")
    right, losses = make_table.complete_passes(log)
    assert (right == table.right).all()
    assert (losses == table.losses).all()
    assert len(log.rows()) == right[..., 0].size + table.noise_losses[..., 0].size


def test_only_code_identifies_a_training():
    code = make_table._code(make_table.Log.rows)
    assert "self . _path . read_text" in code
    assert "finished" not in code  # the docstring


def test_a_search_of_the_table_beats_random_search(table, problem):
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
    reached = problem.true_score([result.best.config])[0]
    # the best true scores among 72 random candidates
    by_chance = [table.truth[sample].max() for sample in _samples(len(table.levels), 72)]
    assert reached > np.mean(by_chance)
    assert result.best.score == problem.curve(result.best.config)[-1]


def _samples(points: int, count: int) -> list[np.ndarray]:
    """Draws 200 random sets of ``count`` points."""
    random = np.random.default_rng(0)
    return [random.choice(points, count, replace=False) for _ in range(200)]


class TestFactorial:
    shape = (3, 2, 4, 5, 2)

    def table(self) -> np.ndarray:
        """Returns a table of two main effects and one interaction of two other axes."""
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

    def test_noise_is_removed_and_signal_is_kept(self):
        noise = np.random.default_rng(0).standard_normal(self.shape)
        estimate = factorial.denoised(self.table() + noise, 1.0)
        assert np.sqrt(((estimate - self.table()) ** 2).mean()) < 0.5
        assert factorial.noise_variance(self.table() + noise, 3) == pytest.approx(1.0, abs=0.2)
