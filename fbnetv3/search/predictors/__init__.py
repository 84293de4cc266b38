"""Predictors of a candidate's score: Gaussian process, networks, the paper's network."""
