#!/usr/bin/env python3
"""Lists, verifies, downloads and adds weights: see ``--help``."""

from __future__ import annotations

from fbnetv3.cli.zoo import cli

if __name__ == "__main__":
    cli()
