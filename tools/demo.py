#!/usr/bin/env python3
"""Trains a small network and classifies images with it: see ``--help``."""

from __future__ import annotations

from fbnetv3.cli.demo import cli

if __name__ == "__main__":
    cli()
