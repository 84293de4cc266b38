"""Predictors: surrogate models of a candidate's score, unlike detectron2's ``DefaultPredictor``.

To add one, see ``predictor.py``.
"""
