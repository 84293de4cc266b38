"""Training and evaluation: detectron2's loop with hooks, for every task."""
