"""Export of trained networks to the file formats of other runtimes.

Each file is checked in its runtime, except Core ML packages.
"""
