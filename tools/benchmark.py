#!/usr/bin/env python3
"""Compares the speed of networks, or measures a latency table: see ``--help``."""

from __future__ import annotations

from fbnetv3.cli.benchmark import cli

if __name__ == "__main__":
    cli()
