"""Trainings that are killed at random moments and resumed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.runs import last_iteration


def train_with_kills(
    resume: Callable[[], subprocess.Popen[str]], folder: Path, kills: int, most_steps: int
) -> list[int]:
    """Starts a training again and again, and kills it each time at a random moment.

    A kill comes after a random number of further steps, and not after a random time: on a busy
    machine all kills by the clock would come before the first step. Where no further step is drawn,
    the process is killed while it starts.

    Args:
        resume: Starts the training, or resumes it, in a process group of its own.
        folder: The folder of its checkpoints.
        kills: Number of kills.
        most_steps: Largest number of further steps until a kill.

    Returns:
        The iteration of the newest checkpoint after each kill.
    """
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    draw, iterations = random.Random(seed), []
    for kill in range(kills):
        further = draw.randint(1 if kill == 0 else 0, most_steps)
        target, process = last_iteration(folder) + further, resume()
        while process.poll() is None and last_iteration(folder) < target:
            time.sleep(0.005)
        time.sleep(draw.uniform(0.0, 0.3))
        assert process.poll() is None, "it ended before it was killed: make the run longer"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        iterations.append(last_iteration(folder))
    print(iterations)
    return iterations
