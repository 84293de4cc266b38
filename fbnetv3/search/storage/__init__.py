"""Storage of trials: memory or an Optuna storage, its lock, the batch log, warm starts."""
