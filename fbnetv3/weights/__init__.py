"""Weights: their records, files and layouts, downloading them, and loading them into a model."""
