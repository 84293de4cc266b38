from __future__ import annotations

import numpy as np

from fbnetv3.search.predictors.default import MAX_POINTS, DefaultPredictor, select_training_points
from tests.search.predictors.synthetic import labelled_pool


def test_evaluate_each_selects_from_all_functions() -> None:
    features, labels, pretrained = labelled_pool()
    predictor = DefaultPredictor(features[:60], labels[:60], pretrained, 0)
    samples = predictor.sample(30, np.random.default_rng(0))
    x, functions = features[60:110], np.random.default_rng(1).integers(0, 30, 50)
    expected = samples(x)[np.arange(50), functions]
    # float32 networks in batches of other sizes differ by rounding
    assert np.allclose(samples.evaluate_each(x, functions), expected, rtol=1e-6, atol=1e-6)


def test_many_labels_are_reduced_to_the_best_and_random_others() -> None:
    labels = np.random.default_rng(0).standard_normal(5000)
    selected = select_training_points(labels, seed=0)
    assert len(set(selected.tolist())) == MAX_POINTS
    assert set(np.argsort(-labels)[: MAX_POINTS // 2]) <= set(selected)
    assert labels[selected].min() < 0
    assert select_training_points(labels[:MAX_POINTS], seed=0).tolist() == list(range(MAX_POINTS))
