#!/usr/bin/env python3
"""Lists, scales, verifies, downloads, adds and publishes networks and weights: see ``--help``."""

from __future__ import annotations

from fbnetv3.cli.zoo import cli

if __name__ == "__main__":
    cli()
