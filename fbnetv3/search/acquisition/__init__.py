"""Which candidates to train next: batches of stage 1, evolution of stage 2."""
