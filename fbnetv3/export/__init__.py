"""Export of trained networks to the file formats of other runtimes, each checked in its runtime."""
