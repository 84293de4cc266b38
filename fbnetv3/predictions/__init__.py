"""Predictions for many images: which images, in batches, and files of results."""
