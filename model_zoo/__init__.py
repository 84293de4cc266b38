"""Configs, recipes and weights, installed as the package ``fbnetv3.model_zoo``."""
