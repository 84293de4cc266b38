"""Evaluations for people: tables, pictures and scores of a trained network on a data set."""
