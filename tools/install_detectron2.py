#!/usr/bin/env python3
"""Installs detectron2 into the running environment: see ``--help``."""

from __future__ import annotations

from fbnetv3.cli.detectron2.install import cli

if __name__ == "__main__":
    cli()
