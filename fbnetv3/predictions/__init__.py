"""Predictions for many images: finding the images, running batches, writing files of results."""
