"""`foundry profile PIPELINE STAGE`: where a training step's time and memory go."""

import argparse
from pathlib import Path

from flows.cli.commands.common import add_pipeline_argument, print_json
from flows.console import Console
from flows.runs.planning import Request
from foundry_core.config.overrides import parse_override
from foundry_core.errors import FoundryError
from foundry_core.files import write_json
from foundry_core.training.profiling.wanted import Wanted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_pipeline_argument(parser, "change one value, e.g. vla.resources.micro_batch=8")
    parser.add_argument("stage", help="a stage that trains; what it reads must be built")
    parser.add_argument("--steps", type=int, default=Wanted.steps, help="measured ones")
    parser.add_argument("--warmup", type=int, default=Wanted.warmup, help="steps before them")
    parser.add_argument(
        "--graph-breaks",
        action="store_true",
        help="trace the loss and the blocks: where torch.compile breaks and why (can take minutes)",
    )
    parser.add_argument("--trace", type=Path, metavar="FILE", help="write a Chrome trace here")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the figures here as JSON")


def run(options: argparse.Namespace) -> int:
    from flows.reports.profiling import profile_stage, ready_stage

    wanted = Wanted(
        steps=options.steps,
        warmup=options.warmup,
        graph_breaks=options.graph_breaks,
        trace=options.trace,
    )
    for path in (options.trace, options.out):
        if path is not None and not path.absolute().parent.is_dir():
            raise FoundryError(f"{path}: its folder does not exist", "make it, or name another")
    overrides = tuple(parse_override(text) for text in options.override)
    request = Request(pipeline=options.pipeline, overrides=overrides)
    ready = ready_stage(request, options.stage)
    with Console(quiet=options.json) as console:
        progress = console.progress(f"profile {options.stage}")
        found = profile_stage(ready, wanted, progress)
    if options.out:
        write_json(options.out, found.to_json(), durable=False)
    if options.json:
        print_json(found.to_json())
        return 0
    from flows.cli.commands.profile_output import show

    show(found)
    return 0
