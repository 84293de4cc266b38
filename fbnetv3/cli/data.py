"""``fbnetv3-data``: packs data sets into shards, converts boxes, and checks data sets."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from fbnetv3.cli import printable, run_main
from fbnetv3.cli.imports import import_code, import_option
from fbnetv3.cli.version_option import version_option

# fbnetv3.data imports torch, so it is imported only by the command: --help prints at once.
_EXAMPLES = """\
examples:
  %(prog)s imagenet/train shards/train --short-side 292
  %(prog)s flowers.zip shards/flowers
"""


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        prog="fbnetv3-data",
        description="Prepare data sets of images for training.",
        parents=[version_option()],
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
    _convert_arguments(
        commands.add_parser(
            "convert",
            help="write boxes of Pascal VOC, YOLO or Open Images as a COCO json",
            description="Write the boxes of a data set as the COCO json that detectors train on.",
            parents=[import_option()],
        )
    )
    _check_arguments(
        commands.add_parser(
            "check",
            help="decode all images and check all labels of a data set of any kind",
            description="Print the number of images or boxes per class, and a line for each fault.",
            parents=[import_option()],
        )
    )
    return parser.parse_args(argv)


def _source_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    images = "folder of the images of a data set of boxes (default: as the format of SRC says)"
    add("--images", type=Path, metavar="DIR", help=images)
    split = "split of a yaml of YOLO: train, val or test (default: train)"
    add("--split", default="train", metavar="NAME", help=split)


def _convert_arguments(parser: argparse.ArgumentParser) -> None:
    source = "folder or ImageSets/Main/*.txt of Pascal VOC, yaml of YOLO, CSV of Open Images"
    parser.add_argument("source", type=Path, metavar="SRC", help=source)
    parser.add_argument("target", type=Path, metavar="DST", help="COCO json to write")
    _source_arguments(parser)
    skip = "leave out faulty boxes and images, instead of writing nothing"
    parser.add_argument("--skip-broken", action="store_true", help=skip)


def _check_arguments(parser: argparse.ArgumentParser) -> None:
    source = "data set of images or boxes: a name, or a path in any format"
    parser.add_argument("source", metavar="SRC", help=source)
    _source_arguments(parser)
    picture = "PNG to write, with samples of each class"
    parser.add_argument("--picture", type=Path, metavar="FILE", help=picture)


def _pack_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", metavar="SRC", help="data set: a name, or a folder or zip of class folders")
    add("folder", type=Path, metavar="DST", help="folder to make; may exist if it is empty")
    short = "reduce images to this length of the short side, as JPEG files (default: copy all)"
    add("--short-side", type=int, default=0, metavar="PX", help=short)
    quality = "JPEG quality of reduced images (default: 95)"
    add("--quality", type=int, default=95, metavar="Q", help=quality)
    size = "size of a shard in megabytes (default: 256)"
    add("--shard-mb", type=int, default=256, metavar="MB", help=size)
    skip = "leave out images that cannot be decoded (default: copy them; with --short-side, stop)"
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


def _convert(arguments: argparse.Namespace) -> int:
    from fbnetv3.data.datasets import find_data
    from fbnetv3.data.errors import DataError, plural
    from fbnetv3.detection.formats.opening import open_boxes, write_coco

    source = find_data(str(arguments.source)) or arguments.source
    boxes = open_boxes(source, arguments.images, arguments.split)
    _print_faults(boxes.faults)
    if boxes.faults and not arguments.skip_broken:
        raise DataError(
            f"{arguments.source}: {plural(len(boxes.faults), 'fault')}, so that nothing was "
            "written; correct them, or leave them out with --skip-broken"
        )
    write_coco(boxes, arguments.target)
    target = arguments.target
    print(f"{target}: {printable(boxes.summary())}")
    print(f"DATASETS.COCO \"[['{target.stem}', '{target.resolve()}', '{boxes.root.resolve()}']]\"")
    where = f"{shlex.quote(str(target))} --images {shlex.quote(str(boxes.root))}"
    print(f"look at them with: fbnetv3-data check {where} --picture samples.png")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from fbnetv3.data.contact_sheet import save_sheet
    from fbnetv3.detection.formats.check import check_data

    checked = check_data(arguments.source, arguments.images, arguments.split)
    print(printable(checked.summary))
    _print_faults(checked.faults)
    if arguments.picture:
        save_sheet(checked.picture, arguments.picture)
        print(f"samples: {arguments.picture}")
    return 1 if checked.faults else 0


def _print_faults(faults: Sequence[str]) -> None:
    for fault in faults:
        print(f"fault: {printable(fault)}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status: 0, or 1 if ``check`` found a fault."""
    arguments = parse(argv)
    import_code(arguments)
    return _COMMANDS[arguments.command](arguments)


_COMMANDS = {"pack": _pack, "convert": _convert, "check": _check}


def cli() -> None:
    """Entry point of the console script."""
    sys.exit(run_main(main))


if __name__ == "__main__":
    cli()
