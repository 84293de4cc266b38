from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr

from fbnetv3.search import SearchSettings
from fbnetv3.search.acquisition.batch import Probabilistic
from fbnetv3.search.errors import SearchError
from fbnetv3.search.fronts import check_several_scores
from fbnetv3.search.objectives import Objective, Objectives
from fbnetv3.search.predictors.encoder import Pretrained, pretrain
from fbnetv3.search.predictors.predictor import PREDICTORS, PROBABILISTIC, fit_function
from tests.search.predictors.synthetic import labelled_pool

# The least rank correlation with unseen labels of each predictor that learns
_LEAST = {"default": 0.75, "paper": 0.4}
# Predictors that do not depend on their seed
_DETERMINISTIC: tuple[str, ...] = ()


def test_each_predictor_is_tested() -> None:
    assert {*PREDICTORS} == {*_LEAST, "random"}
    assert {*_DETERMINISTIC} <= {*PREDICTORS}


@pytest.mark.parametrize("name", PREDICTORS)
def test_predictors_with_a_posterior_are_declared(name: str) -> None:
    features, labels, pretrained = labelled_pool()
    fitted = fit_function(name)(features[:20], labels[:20], pretrained, 0)
    assert isinstance(fitted, Probabilistic) == (name in PROBABILISTIC)
    parts = SearchSettings(predictor=name).sizes_of_first_parts()
    assert len(parts) == (3 if name in PROBABILISTIC else 1)


def test_a_further_predictor_with_a_posterior_is_treated_as_the_default_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = "fbnetv3.search.predictors.predictor"
    monkeypatch.setitem(PREDICTORS, "further", PREDICTORS["default"])
    monkeypatch.setattr(f"{module}.PROBABILISTIC", (*PROBABILISTIC, "further"))
    monkeypatch.setattr("fbnetv3.search.fronts.PROBABILISTIC", (*PROBABILISTIC, "further"))
    settings = SearchSettings(predictor="further", objectives=("a", "b"))
    check_several_scores(Objectives((Objective("a"), Objective("b"))), settings, [])
    assert replace(settings, objectives=("score",)).sizes_of_first_parts() == (16, 16, 16)


@pytest.mark.parametrize(("name", "least"), _LEAST.items())
def test_predictors_rank_unseen_candidates(name: str, least: float) -> None:
    features, labels, pretrained = labelled_pool()
    fitted = fit_function(name)(features[:96], labels[:96], pretrained, 0)
    unseen = spearmanr(fitted.predict(features[96:]), labels[96:]).statistic
    assert unseen > least
    cross_validated = spearmanr(fitted.cross_validated(), labels[:96]).statistic
    assert abs(cross_validated - unseen) < 0.25


@pytest.mark.parametrize("name", PREDICTORS)
def test_cross_validation_of_noise_is_near_zero(name: str) -> None:
    features, labels, pretrained = labelled_pool()
    noise = np.random.default_rng(0).permutation(labels[:96])
    fitted = fit_function(name)(features[:96], noise, pretrained, 0)
    assert abs(spearmanr(fitted.cross_validated(), noise).statistic) < 0.35


@pytest.mark.parametrize("name", PREDICTORS)
def test_a_fit_is_determined_by_its_seed(name: str) -> None:
    features, labels, pretrained = labelled_pool()
    first, same, other = (
        fit_function(name)(features[:40], labels[:40], pretrained, seed).predict(features)
        for seed in (1, 1, 2)
    )
    assert (first == same).all()
    assert (first == other).all() == (name in _DETERMINISTIC)


@pytest.mark.parametrize("name", _LEAST)
def test_equal_labels_without_an_architecture_are_predicted(name: str) -> None:
    features, _, _ = labelled_pool()
    fitted = fit_function(name)(features[:10], np.full(10, 3.0), Pretrained([]), 0)
    assert np.allclose(fitted.predict(features), 3.0, atol=1.0)


def test_the_random_predictor_has_new_scores_each_round() -> None:
    features, labels, pretrained = labelled_pool()
    first, same, next_round, other_seed = (
        fit_function("random")(features[:n], labels[:n], pretrained, seed).predict(features)
        for n, seed in ((24, 0), (24, 0), (48, 0), (24, 1))
    )
    assert np.array_equal(first, same)
    for scores in (next_round, other_seed):
        assert abs(np.corrcoef(first, scores)[0, 1]) < 0.2
    assert abs(np.corrcoef(first, labels)[0, 1]) < 0.2


def test_an_unknown_predictor_is_refused() -> None:
    with pytest.raises(SearchError, match=r"'papr'.*did you mean paper"):
        fit_function("papr")


def test_pretraining_learns_the_statistics() -> None:
    _, _, pretrained = labelled_pool(2000)
    assert pretrained.correlation["macs"] > 0.97


def test_pretraining_ignores_constant_statistics() -> None:
    features, _, _ = labelled_pool()
    pretrained = pretrain(features, {"macs": np.ones(len(features))}, [0, 1], seed=0)
    assert pretrained.weight is None
