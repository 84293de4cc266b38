#!/usr/bin/env python3
"""Writes a classifier or a detector as files of other runtimes: see ``--help``."""

from __future__ import annotations

from fbnetv3.cli.export import cli

if __name__ == "__main__":
    cli()
