#!/usr/bin/env python3
"""Times networks, their deploy form and timm's networks side by side: see ``--help``."""

from __future__ import annotations

from fbnetv3.cli.benchmark import cli

if __name__ == "__main__":
    cli()
