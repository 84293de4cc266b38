#!/usr/bin/env python3
"""Searches for an architecture and its training recipe: see ``--help``."""

from __future__ import annotations

from fbnetv3.cli.search import cli

if __name__ == "__main__":
    cli()
