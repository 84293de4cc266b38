"""Where trials are kept: Optuna storages, locks, the batch log, warm starts."""
