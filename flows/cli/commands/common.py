"""Arguments and printing that several commands share."""

import argparse
import json
from typing import Any

from flows.run.planning import Request
from foundry_core.config.overrides import parse_override


def add_request_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pipeline", help="a name (see stage_configs/pipelines) or a YAML file")
    parser.add_argument(
        "-o",
        "--override",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        help="change one value, e.g. llm.training.steps=200",
    )
    parser.add_argument("--only", action="append", default=[], metavar="STAGE")
    parser.add_argument("--force", action="append", default=[], metavar="STAGE")
    parser.add_argument("--baseline", metavar="RUN", help="explain against this run")
    parser.add_argument(
        "--strict-code", action="store_true", help="changed training code re-runs training"
    )


def request(options: argparse.Namespace) -> Request:
    return Request(
        pipeline=options.pipeline,
        overrides=tuple(parse_override(text) for text in options.override),
        only=tuple(options.only),
        force=tuple(options.force),
        baseline=options.baseline,
        strict_code=options.strict_code,
    )


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=1, default=str))
