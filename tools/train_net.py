#!/usr/bin/env python3
"""Trains or evaluates the network of a config: see ``--help``."""

from __future__ import annotations

from fbnetv3.cli.train import cli

if __name__ == "__main__":
    cli()
