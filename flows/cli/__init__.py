"""`foundry`: the command line. Parses, calls one function, prints; errors are one line, exit 2.

Each command lives in flows/cli/commands/ and is imported only when it is typed, so that `plan` and
`--help` never pay for torch, Ray or Prefect.
"""

import argparse
import gc
import importlib
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

from flows import signals
from foundry_core import __version__
from foundry_core.errors import FoundryError
from foundry_core.project import enter

# What is imported lives as long as the process: looking for garbage in it takes 15 ms of a plan.
gc.set_threshold(100_000)
# Looking for pydantic plugins reads the entry points of all that is installed, 10 ms of each start.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

# command → module under flows.cli.commands that adds its arguments and runs it
COMMANDS = {
    "run": "run a pipeline: reuse what is valid, build the rest",
    "ablate": "vary settings and seeds, share what is equal, end in a verdict",
    "search": "try many variants on rungs of a growing budget, judge the best of them",
    "ablation": "list, show and compare past ablations",
    "serve": "run Prefect's server, workers and UI for this home",
    "status": "what runs, what waits, who works",
    "cancel": "stop a run within seconds",
    "reap": "close what killed processes left open",
    "plan": "show what a run would do, and why",
    "config": "show what every setting is worth, and which document says so",
    "size": "say what the trainings of a pipeline take: memory, FLOPs, GPU hours",
    "profile": "take a training step apart: time, memory, operators, MFU and its ceiling",
    "lineage": "query what was built from what",
    "data": "preview, inspect, validate and convert datasets; their statistics",
    "generate": "look at a model: what it writes after a text and pictures",
    "policy": "serve a policy to benchmarks and robots",
    "export-hf": "write a model as a folder for others, and onto the Hugging Face hub",
    "eval": "compare evaluations; plan how many episodes are needed",
    "report": "write report.html of a run or an ablation",
    "stages": "list stage kinds and what can be set in each",
    "models": "list model presets and their sizes",
    "init": "make a folder for pipelines, stage kinds and mappings of your own",
    "doctor": "look at what this machine has, and what is missing",
}
_EXAMPLES = """examples:
  foundry run demo-fast                        text to a verdict, in minutes
  foundry plan demo -o llm.training.steps=400  what one changed value re-runs, and why
  foundry ablate demo --vary vla.training.steps=500,1000 --seeds 3
  foundry init my-lab                          a folder for your own pipelines and kinds
  foundry COMMAND --help                       what a command takes"""
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/")
_WITHOUT_HOME = ("stages", "models", "size", "config", "doctor", "init")


def main(argv: Sequence[str] | None = None) -> int:
    try:
        code = _execute(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return code
    except SystemExit as end:
        return _ended(end)
    except OSError as error:
        return _unwritten(error)


def _execute(arguments: Sequence[str]) -> int:
    if "_ARGCOMPLETE" in os.environ:
        from flows.cli.completion import complete

        complete(argument_parser)
    named = next((word for word in arguments if not word.startswith("-")), None)
    parser = argument_parser(named)
    if not arguments:
        parser.print_help()
        return 0
    if named is not None and named not in COMMANDS:
        return reported(lambda: _refuse_command(named))
    options, left = parser.parse_known_args(arguments)
    if left:
        return reported(lambda: _refuse_rest(parser, options, left))
    module = command_module(options.command)
    as_json = getattr(options, "json", False)

    def run() -> int:
        enter()
        _name_home(options.command)
        _refuse_addresses(options)
        return module.run(options)

    return reported(run, as_json=as_json, debug=options.debug)


def _refuse_command(name: str) -> int:
    from foundry_core.config.suggest import nearest

    raise FoundryError(f"there is no command {name!r}", nearest(name, COMMANDS))


def _refuse_rest(
    parser: argparse.ArgumentParser, options: argparse.Namespace, left: Sequence[str]
) -> int:
    """Words that no argument takes: as a rule those of an override with spaces around its `=`."""
    for text in getattr(options, "override", None) or ():
        path, equals, value = str(text).partition("=")
        if not equals or not value:
            example = f"without spaces: -o {path}={left[-1].lstrip('=') or 'VALUE'}"
            raise FoundryError(f"override {text!r} is not PATH=VALUE", example)
    parser.error(f"unrecognized arguments: {' '.join(left)}")


def command_module(command: str) -> ModuleType:
    """Where a command's arguments and its `run` are."""
    return importlib.import_module(f"flows.cli.commands.{command.replace('-', '_')}")


def argument_parser(named: str | None) -> argparse.ArgumentParser:
    """Of all commands; with the arguments of the named one alone, since each imports its own."""
    parser = argparse.ArgumentParser(
        prog="foundry",
        description="Train robot foundation models as one pipeline.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    parser.add_argument("--version", action="version", version=f"foundry {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        sub = commands.add_parser(name, help=summary, description=summary)
        if name == named:
            command_module(name).add_arguments(sub)
            sub.add_argument("--json", action="store_true", help="print JSON")
            sub.add_argument(
                "--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks"
            )
    return parser


def _refuse_addresses(options: argparse.Namespace) -> None:
    """Path("s3://b/out") is a folder `s3:` here. Arguments that may be addresses are strings."""
    for name, value in vars(options).items():
        for path in value if isinstance(value, list) else [value]:
            if isinstance(path, Path) and _ADDRESS.match(str(path)):
                raise FoundryError(
                    f"{name} = {str(path).replace(':/', '://', 1)!r} is an address, and this "
                    "works on files of this machine only",
                    "name a file or folder here, and copy it",
                )


def reported(command: Callable[[], int], *, as_json: bool = False, debug: bool = False) -> int:
    """The exit code of a command, which ends soon after a signal. An error, or that it was
    interrupted, is one line."""
    try:
        with signals.ends_on_signals():
            return command()
    except (FoundryError, OSError) as raised:
        error = raised if isinstance(raised, FoundryError) else _in_home(raised)
        if debug or error is None:
            raise
        if as_json:
            print(json.dumps({"error": error.message, "hint": error.hint}))
        else:
            print(f"foundry: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as end:
        why = "; ".join(getattr(end, "__notes__", ())) or "interrupted"
        if as_json:
            print(json.dumps({"error": why, "hint": ""}))
        else:
            print(f"foundry: {why}", file=sys.stderr)
        return signals.exit_code(end)


def _name_home(command: str) -> None:
    """Says where the state lies when that is not the current folder and nobody said so."""
    from foundry_core.home import NAME, home_dir

    if command in _WITHOUT_HOME or os.environ.get("FOUNDRY_HOME"):
        return
    if (home := home_dir()) != Path.cwd() / NAME:
        print(f"foundry: the home is {home}", file=sys.stderr)


def _in_home(error: OSError) -> FoundryError | None:
    """What the system refuses in the home, in words."""
    from foundry_core.home import home_dir

    home, place = home_dir(), error.filename
    if not isinstance(place, str | Path) or not Path(place).absolute().is_relative_to(home):
        return None
    return FoundryError(
        f"the home {home} cannot be used: {place}: {error.strerror}",
        "check the folder, its permissions and its disk, or set FOUNDRY_HOME to another place",
    )


def _ended(end: SystemExit) -> int:
    """argparse ends so when it has printed the help or an error, rich when nobody reads on."""
    if isinstance(end.__context__, BrokenPipeError):
        return 0
    try:
        sys.stdout.flush()
    except OSError as error:
        return _unwritten(error)
    raise end


def _unwritten(error: OSError) -> int:
    """The exit code for output that nobody reads on (`| head`) or that has no room."""
    if not isinstance(error, BrokenPipeError):
        if _stdout_works():
            raise error
        print(f"foundry: the output cannot be written ({error.strerror})", file=sys.stderr)
    # Python writes what is left when it exits, and would complain once more.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0 if isinstance(error, BrokenPipeError) else 1


def _stdout_works() -> bool:
    try:
        print(flush=True)
    except OSError:
        return False
    return True
