"""`foundry config PIPELINE [STAGE]`: what every setting is worth, and who said so."""

import argparse
from dataclasses import asdict

from flows.cli.commands.common import add_pipeline_argument, print_json
from foundry_core.config.overrides import parse_override
from foundry_core.config.suggest import nearest
from foundry_core.errors import FoundryError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_pipeline_argument(parser, "change one value, e.g. llm.training.steps=200")
    parser.add_argument("stage", nargs="?", help="one stage of it (default: all of them)")
    parser.add_argument(
        "--said", action="store_true", help="only what a document or -o sets, no defaults"
    )


def run(options: argparse.Namespace) -> int:
    from foundry_core.pipeline.registry import stage_kind
    from foundry_core.pipeline.resolved import DEFAULT, resolved_settings

    overrides = [parse_override(text) for text in options.override]
    stages = resolved_settings(options.pipeline, overrides, kinds=stage_kind)
    if options.stage:
        if options.stage not in stages:
            raise FoundryError(f"no stage {options.stage!r}", nearest(options.stage, stages))
        stages = {options.stage: stages[options.stage]}
    if options.said:
        stages = {n: [row for row in rows if row.origin != DEFAULT] for n, rows in stages.items()}
    if options.json:
        print_json({name: [asdict(row) for row in rows] for name, rows in stages.items()})
        return 0
    from flows.terminal import print_entries
    from foundry_core.config.overrides import value_text

    print_entries(
        (f"{name}.{row.setting}={value_text(row.value)}", f"# {row.origin}")
        for name, rows in stages.items()
        for row in rows
    )
    return 0
