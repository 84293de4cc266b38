"""Weights: records, download, files, layouts, and loading into a model."""
