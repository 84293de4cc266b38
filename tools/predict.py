#!/usr/bin/env python3
"""Predicts the classes of images, or the objects in them: see ``--help``."""

from __future__ import annotations

from fbnetv3.cli.predict import cli

if __name__ == "__main__":
    cli()
