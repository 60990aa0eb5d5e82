"""`foundry models`: the presets and their sizes."""

import argparse

from flows.cli.commands.common import print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="one preset: its whole configuration")


def run(options: argparse.Namespace) -> int:
    from foundry_core.models.presets import load_preset, preset_names

    names = [options.name] if options.name else preset_names()
    configs = {name: load_preset(name).model_dump(mode="json") for name in names}
    if options.json or options.name:
        print_json(configs)
        return 0
    from rich.table import Table

    from flows.terminal import stdout

    table = Table("preset", "kind", "width", "layers")
    for name, config in configs.items():
        shown = config.get("head", {}) if "dim" not in config else config
        sizes = (str(shown.get(size, "")) for size in ("dim", "n_layers"))
        table.add_row(name, config["kind"], *sizes)
    stdout().print(table)
    return 0
