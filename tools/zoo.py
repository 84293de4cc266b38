#!/usr/bin/env python3
"""Lists, checks and downloads weights, and writes MODEL_ZOO.md: see ``--help``."""

from __future__ import annotations

from fbnetv3.cli.zoo import cli

if __name__ == "__main__":
    cli()
