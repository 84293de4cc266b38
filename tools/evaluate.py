#!/usr/bin/env python3
"""Evaluates a network on a data set, with tables and pictures: see ``--help``."""

from __future__ import annotations

from fbnetv3.cli.evaluate import cli

if __name__ == "__main__":
    cli()
