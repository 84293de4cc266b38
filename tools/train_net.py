#!/usr/bin/env python3
"""Trains or evaluates what a config describes: see ``--help``."""

from __future__ import annotations

from fbnetv3.cli.train import cli

if __name__ == "__main__":
    cli()
