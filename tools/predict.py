#!/usr/bin/env python3
"""Prints the classes of images: see ``--help``."""

from __future__ import annotations

from fbnetv3.cli.predict import cli

if __name__ == "__main__":
    cli()
