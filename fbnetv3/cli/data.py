"""``fbnetv3-data``: packs data sets into shards."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from fbnetv3.cli import run_main
from fbnetv3.cli.imports import import_code, import_option

# fbnetv3.data imports torch, so it is imported only by the command: --help prints at once.
_EXAMPLES = """\
examples:
  %(prog)s imagenet/train shards/train --short-side 292
  %(prog)s flowers.zip shards/flowers
"""


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        prog="fbnetv3-data", description="Prepare data sets of images for training."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _pack_arguments(
        commands.add_parser(
            "pack",
            help="write a data set as tar shards, which train like the original",
            description="Write a data set as tar shards of the WebDataset layout with an index. "
            "DATASETS.TRAIN and DATASETS.TEST take the new folder in place of the original.",
            epilog=_EXAMPLES,
            parents=[import_option()],
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    )
    return parser.parse_args(argv)


def _pack_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", metavar="SRC", help="data set: a name, or a folder or zip of class folders")
    add("folder", type=Path, metavar="DST", help="folder to make; must not exist, or be empty")
    short = "reduce images to this length of the short side, as JPEG files (default: keep all)"
    add("--short-side", type=int, default=0, metavar="PX", help=short)
    add("--quality", type=int, default=95, metavar="Q", help="their JPEG quality (default: 95)")
    size = "size of a shard in megabytes (default: 256)"
    add("--shard-mb", type=int, default=256, metavar="MB", help=size)
    skip = "leave out images that cannot be decoded, instead of copying them"
    add("--skip-broken", action="store_true", help=skip)


def _pack(arguments: argparse.Namespace) -> int:
    from fbnetv3.data import build_dataset
    from fbnetv3.data.errors import plural
    from fbnetv3.data.pack import PackOptions, pack

    options = PackOptions(arguments.short_side, arguments.quality, arguments.shard_mb << 20)
    dataset = build_dataset(arguments.source, skip_broken=arguments.skip_broken)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(f"packing {arguments.source}", total=len(dataset))
        count = pack(dataset, arguments.folder, options, lambda n: progress.advance(task, n))
    images, classes = plural(len(dataset), "image"), plural(len(dataset.classes), "class", "es")
    print(f"{arguments.folder}: {images} of {classes} in {plural(count, 'shard')}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status, 0."""
    arguments = parse(argv)
    import_code(arguments)
    return _COMMANDS[arguments.command](arguments)


_COMMANDS = {"pack": _pack}


def cli() -> None:
    """Entry point of the console script."""
    sys.exit(run_main(main))


if __name__ == "__main__":
    cli()
