#!/usr/bin/env python3
"""Packs data sets into shards, converts boxes, and checks data sets: see ``--help``."""

from __future__ import annotations

from fbnetv3.cli.data import cli

if __name__ == "__main__":
    cli()
