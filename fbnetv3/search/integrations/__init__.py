"""The search inside other optimisers: a sampler of Optuna and a searcher of Ray Tune.

Each file imports the package that it is for; nothing else in the project imports these files.
"""
