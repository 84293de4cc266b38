"""Recipes and configs, installed as the package ``fbnetv3.model_zoo``; see fbnetv3.resources."""
