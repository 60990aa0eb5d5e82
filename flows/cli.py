"""`foundry`: the command line. Parses, calls one function, prints; errors are one line, exit 2.

Each command lives in flows/commands/ and is imported only when it is typed, so that `plan` and
`--help` never pay for torch, Ray or Prefect.
"""

import argparse
import gc
import importlib
import json
import os
import sys
from collections.abc import Sequence

from foundry_core.errors import FoundryError

# What is imported lives as long as the process: looking for garbage in it takes 15 ms of a plan.
gc.set_threshold(100_000)
# Looking for pydantic plugins reads the entry points of all that is installed, 10 ms of each start.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

# command → module under flows.commands that adds its arguments and runs it
COMMANDS = {
    "run": "run a pipeline: reuse what is valid, build the rest",
    "ablate": "vary settings and seeds, share what is equal, end in a verdict",
    "serve": "run Prefect's server, workers and UI for this home",
    "status": "what runs, what waits, who works",
    "cancel": "stop a run within seconds",
    "reap": "close what killed processes left open",
    "plan": "show what a run would do, and why",
    "lineage": "query what was built from what",
    "data": "preview, inspect, validate and convert datasets; their statistics",
    "eval": "compare evaluations; plan how many episodes are needed",
    "report": "write report.html of a run or an ablation",
    "models": "list model presets and their sizes",
}


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="foundry", description="Train robot foundation models as one pipeline."
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    named = next((word for word in arguments if not word.startswith("-")), None)
    for name, summary in COMMANDS.items():
        sub = commands.add_parser(name, help=summary, description=summary)
        if name == named:
            importlib.import_module(f"flows.commands.{name}").add_arguments(sub)
            sub.add_argument("--json", action="store_true", help="print JSON")
            sub.add_argument("--debug", action="store_true", default=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        return importlib.import_module(f"flows.commands.{options.command}").run(options)
    except FoundryError as error:
        if options.debug:
            raise
        return _report(error, getattr(options, "json", False))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0


def _report(error: FoundryError, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"error": error.message, "hint": error.hint}))
    else:
        print(f"foundry: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
