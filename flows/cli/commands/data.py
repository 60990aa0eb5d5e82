"""`foundry data ...`: look into datasets, check, convert and export them, and their statistics."""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.cli.commands.common import print_json
from foundry_core.config.overrides import parse_override
from foundry_core.errors import FoundryError
from foundry_core.files import write_atomic
from foundry_core.identity.sources import is_remote

if TYPE_CHECKING:
    from foundry_core.data.mapping.config import RobotMapping


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _add_preview(actions.add_parser("preview", help="what a batch really contains"))
    _add_looks(actions)
    convert = actions.add_parser("convert", help="raw data into a folder of shards")
    convert.add_argument(
        "--from", dest="format", required=True, metavar="FORMAT", help="of the source"
    )
    convert.add_argument("source", help="file or folder (for packages: names, by commas)")
    convert.add_argument("out", help="new folder for the shards, or s3://bucket/prefix")
    convert.add_argument("--tokenizer", type=Path, help="folder of the tokenizer, for text")
    convert.add_argument("--cpus", type=int, default=1, help="processes at once (default 1)")
    _add_overrides(convert, "one value of the recipe, e.g. image.size=[96,96]")
    export = actions.add_parser("export", help="robot shards into a dataset that others read")
    export.add_argument("shards", help="folder or address of shards of whole episodes")
    export.add_argument("out", type=Path, help="new folder for the dataset")
    export.add_argument("--to", required=True, choices=("lerobot",), help="lerobot: v3.0")
    export.add_argument(
        "--images",
        choices=("video", "png", "jpeg"),
        default="video",
        help="video: small, lossy (default); in the tables and exact: png, jpeg (as stored)",
    )
    for sub in actions.choices.values():
        sub.add_argument(
            "--json", action="store_true", default=argparse.SUPPRESS, help="print JSON"
        )


def _add_preview(preview: argparse.ArgumentParser) -> None:
    preview.add_argument("pipeline", nargs="?", help="with STAGE: what this training stage reads")
    preview.add_argument("stage", nargs="?", help="a training stage of it")
    preview.add_argument(
        "--mix",
        nargs="+",
        metavar="[LABEL=]PLACE[@WEIGHT]",
        help="folders or addresses of shards, instead of a pipeline's stage",
    )
    preview.add_argument("--tokenizer", type=Path, help="folder; without it, --mix counts bytes")
    preview.add_argument("--tokens-per-image", type=int, default=1, help="for --mix")
    preview.add_argument("--seed", type=int, default=0, help="for --mix")
    preview.add_argument("--step", type=int, default=0, help="which batch")
    preview.add_argument("--images", type=Path, help="write a contact sheet per modality here")
    _add_overrides(preview, "vla.data.robot.batch_size=8; with --mix robot.batch_size=8")


def _add_looks(actions: Any) -> None:
    stats = actions.add_parser("stats", help="statistics of a robot dataset, recomputed")
    stats.add_argument("folder", help="folder or address of shards")
    stats.add_argument("--out", type=Path, help="write stats.json (and what merging needs) here")
    show = actions.add_parser("show", help="show stored statistics, draw them")
    show.add_argument("folder", help="a stats.json, or a folder that holds one")
    show.add_argument("--html", type=Path, help="write one page with table and plots")
    for sub in (stats, show):
        sub.add_argument(
            "--field", action="append", default=[], help="one of the fields (default: all)"
        )
        sub.add_argument("--plot", type=Path, help="write one PNG per field to this folder")
    merge = actions.add_parser("merge-stats", help="merge the statistics of several datasets")
    merge.add_argument("folders", nargs="+", help="[LABEL=]FOLDER")
    merge.add_argument("--weights", nargs="+", type=float, help="share of each; else by count")
    merge.add_argument("--out", type=Path, required=True, help="stats.json to write")
    inspect = actions.add_parser("inspect", help="what a folder of shards, or raw data, holds")
    inspect.add_argument("folder", help="of shards, or raw data as a tool left them")
    inspect.add_argument("--sample", type=int, default=0, help="whose members are listed")
    inspect.add_argument("--from", dest="format", metavar="FORMAT", help="of raw data")
    inspect.add_argument("--images", type=Path, help="write a contact sheet of raw data here (PNG)")
    inspect.add_argument("--mapping", type=Path, help="write the draft of a mapping here (YAML)")
    inspect.add_argument(
        "--check",
        metavar="MAPPING",
        help="try a mapping, by name or file (YAML), on one episode of raw robot data",
    )
    _add_overrides(inspect, "an option of the raw format, e.g. hz=20")
    validate = actions.add_parser("validate", help="digests, schema, and samples decoded")
    validate.add_argument("folder", help="folder or address of shards")
    validate.add_argument("--samples", type=int, default=50, help="how many to decode; 0: all")
    check = actions.add_parser("check", help="what normalisation cuts off a robot dataset")
    check.add_argument("folder", help="folder or address of robot shards")
    check.add_argument("--stats", type=Path, help="stats.json, or its folder; else the dataset's")
    check.add_argument("--force", action="store_true", help="even if they are of other datasets")


def _add_overrides(parser: argparse.ArgumentParser, example: str) -> None:
    parser.add_argument(
        "-o", "--override", action="append", default=[], metavar="PATH=VALUE", help=example
    )


def run(options: argparse.Namespace) -> int:
    return _ACTIONS[options.action](options)


def _preview(options: argparse.Namespace) -> int:
    from flows.reports.datasets import mix_loader, stage_loader
    from flows.runs.planning import Request
    from foundry_core.data.inspection.preview import preview, render_preview, save_images

    overrides = tuple(parse_override(text) for text in options.override)
    if bool(options.mix) == bool(options.stage) or (options.mix and options.pipeline):
        raise FoundryError(
            "preview looks at a pipeline's training stage, or at a --mix of shard folders",
            "foundry data preview demo vla, or foundry data preview --mix FOLDER FOLDER",
        )
    if options.step < 0:
        raise FoundryError(f"--step {options.step}: steps count from 0")
    if options.mix:
        made = mix_loader(
            options.mix,
            overrides,
            tokenizer=options.tokenizer,
            tokens_per_image=options.tokens_per_image,
            seed=options.seed,
        )
    else:
        request = Request(pipeline=options.pipeline, overrides=overrides)
        made = stage_loader(request, options.stage)
    found = preview(made.loader, made.tokenizer, options.step, made.coverage, made.notes)
    if options.images:
        batch = made.loader.batch(options.step)
        found["sheets"] = [str(p) for p in save_images(batch, options.images)]
    return _show(options, found, render_preview)


def _stats(options: argparse.Namespace) -> int:
    from foundry_core.data.inspection.recompute import dataset_statistics

    statistics = dataset_statistics(options.folder)
    if options.out:
        statistics.save(options.out)
    return _shown_statistics(options, statistics)


def _stored(options: argparse.Namespace) -> int:
    from foundry_core.data.inspection.figures import statistics_page
    from foundry_core.data.statistics.dataset import DatasetStatistics

    statistics = DatasetStatistics.load(options.folder)
    if options.html:
        write_atomic(options.html, statistics_page(statistics, options.folder, options.field))
    return _shown_statistics(options, statistics)


def _shown_statistics(options: argparse.Namespace, statistics: Any) -> int:
    from foundry_core.data.inspection import figures as inspect

    description = inspect.describe(statistics, options.field)
    if options.plot:
        inspect.plot_statistics(statistics, options.plot, options.field)
    return _show(options, description, inspect.render_statistics)


def _merge(options: argparse.Namespace) -> int:
    from foundry_core.data.inspection.check import merged_coverage
    from foundry_core.data.statistics.dataset import merge_files

    folders: dict[str, str] = {}
    for text in options.folders:
        label, equals, folder = text.partition("=")
        if label in folders:
            raise FoundryError(f"merge-stats names {label!r} twice", "use LABEL=FOLDER")
        folders[label] = folder if equals else text
    weights = None
    if options.weights:
        if len(options.weights) != len(folders):
            raise FoundryError(
                f"{len(options.weights)} weights for {len(folders)} datasets",
                "give one weight per dataset, in their order",
            )
        weights = dict(zip(folders, options.weights, strict=True))
    merged, report = merge_files(folders, weights)
    found = merged_coverage(merged, folders.values())
    merged.save(options.out)
    shown = {name: asdict(field) for name, field in found.items()}
    print_json({"written": str(options.out), **report, "normalization": shown})
    return 0


def _inspect(options: argparse.Namespace) -> int:
    from foundry_core.data.inspection.contents import contents, render_contents

    folder = Path(options.folder)
    if is_remote(options.folder) and (options.format or options.check):
        raise FoundryError(
            f"{options.folder} lies elsewhere: raw data is looked into on this machine only",
            "copy it, or a part of it, here; a conversion fetches it by itself",
        )
    if options.format or options.check or (folder.exists() and not any(folder.glob("*.tar"))):
        return _inspect_raw(options, folder)
    return _show(options, contents(options.folder, options.sample), render_contents)


def _inspect_raw(options: argparse.Namespace, path: Path) -> int:
    from flows.reports.datasets import raw_source
    from foundry_core.data.inspection.raw import contact_sheet, raw_contents, render_raw
    from foundry_core.data.inspection.raw_words import raw_words, render_words
    from foundry_core.data.sources.base import RobotFormat

    overrides = [parse_override(text) for text in options.override]
    mapping = _mapping(options.check) if options.check else None
    source = raw_source(options.format, path, overrides, mapping.hz if mapping else None)
    if not isinstance(source, RobotFormat):
        if options.images or options.mapping or options.check:
            raise FoundryError(
                f"{path} is {source.format}: only robot data has a contact sheet and a mapping",
                "leave out --images, --mapping and --check",
            )
        words = raw_words(source, str(path), guess=not overrides)
        return _show(options, asdict(words) if options.json else words, render_words)
    if mapping is not None:
        from foundry_core.data.inspection.trial import render_trial, tried

        trial = tried(source, mapping, options.folder, options.check)
        return _show(options, asdict(trial) if options.json else trial, render_trial)
    found, first = raw_contents(source, str(path))
    if options.images:
        contact_sheet(first, options.images)
    if options.mapping:
        write_atomic(options.mapping, found.mapping)
    return _show(options, asdict(found) if options.json else found, render_raw)


def _mapping(named: str) -> "RobotMapping":
    """By a ready one's name, or a file."""
    from foundry_core.config.validation import validate
    from foundry_core.data.mapping.config import RobotMapping, load_mapping

    mapping: RobotMapping = validate(RobotMapping, load_mapping(named), named)
    return mapping


def _validate(options: argparse.Namespace) -> int:
    from foundry_core.data.inspection.validate import render_validation, validate

    report = validate(options.folder, samples=options.samples)
    _show(options, report, render_validation)
    return 1 if report["findings"] else 0


def _check(options: argparse.Namespace) -> int:
    from foundry_core.data.inspection.check import check, render_check

    found = check(options.folder, options.stats, force=options.force)
    return _show(options, found, render_check)


def _convert(options: argparse.Namespace) -> int:
    from flows.console import Console
    from flows.reports.datasets import convert

    with Console() as console:
        metrics = convert(
            options.format,
            options.source,
            options.out,
            [parse_override(text) for text in options.override],
            tokenizer=options.tokenizer,
            cpus=options.cpus,
            progress=console.progress("convert"),
            note=lambda text: console.say(f"doubt: {text}"),
        )
    print_json({"written": options.out, **metrics})
    return 0


def _export(options: argparse.Namespace) -> int:
    from foundry_core.data.export.lerobot import export_lerobot

    counts = export_lerobot(options.shards, options.out, images=options.images)
    print_json({"written": str(options.out), **counts})
    return 0


def _show(options: argparse.Namespace, found: Any, render: Any) -> int:
    if options.json:
        print_json(found)
    else:
        from flows.terminal import stdout

        stdout().print(render(found))
    return 0


_ACTIONS = {
    "preview": _preview,
    "stats": _stats,
    "show": _stored,
    "merge-stats": _merge,
    "inspect": _inspect,
    "validate": _validate,
    "check": _check,
    "convert": _convert,
    "export": _export,
}
