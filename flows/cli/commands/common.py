"""Arguments and printing that several commands share."""

import argparse
import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.runs.planning import Prepared, Request
from foundry_core.config.overrides import parse_override
from foundry_core.home import home_dir
from foundry_core.identity.code import is_known
from foundry_core.pipeline.cost import Cost, check_affordable, stated_rate

if TYPE_CHECKING:
    from flows.console import Console
    from flows.runs.engine import RunResult
    from flows.runs.walk import Work

_PATIENCE_SECONDS = 2.0


def add_pipeline_arguments(parser: argparse.ArgumentParser, override: str) -> None:
    """A pipeline and changes to it. override: what `-o` does."""
    add_pipeline_argument(parser, override)
    parser.add_argument(
        "--strict-code", action="store_true", help="changed training code re-runs training"
    )
    parser.add_argument(
        "--strict-env",
        action="store_true",
        help="what was built with other packages, variables or processors is built again",
    )
    parser.add_argument(
        "--strict-reads",
        action="store_true",
        help="a stage that reads a file which its key does not know fails",
    )


def add_pipeline_argument(parser: argparse.ArgumentParser, override: str) -> None:
    """A pipeline and `-o`, alone."""
    parser.add_argument("pipeline", help="a name (see stage_configs/pipelines) or a YAML file")
    many: dict[str, Any] = {"action": "append", "default": []}
    parser.add_argument("-o", "--override", **many, metavar="PATH=VALUE", help=override)


def add_request_arguments(parser: argparse.ArgumentParser) -> None:
    """What `request` reads."""
    add_pipeline_arguments(parser, "change one value, e.g. llm.training.steps=200")
    many: dict[str, Any] = {"action": "append", "default": [], "metavar": "STAGE"}
    parser.add_argument("--only", **many, help="build this stage and what it needs")
    parser.add_argument("--force", **many, help="build this stage anew")
    parser.add_argument("--baseline", metavar="RUN", help="explain against this run")


def request(options: argparse.Namespace) -> Request:
    """What those arguments ask for."""
    return Request(
        pipeline=options.pipeline,
        overrides=tuple(parse_override(text) for text in options.override),
        only=tuple(options.only),
        force=tuple(options.force),
        baseline=options.baseline,
        strict_code=options.strict_code,
        strict_env=options.strict_env,
        strict_reads=options.strict_reads,
    )


def first_plan() -> contextlib.AbstractContextManager[None]:
    """Around planning: says what takes so long where it is the first time, after 2 s."""
    if is_known():
        return contextlib.nullcontext()
    from flows.terminal import said_after  # rich: a plan as JSON does without

    # A plan makes no home (home.py), and without one nothing is kept.
    later = "later plans" if home_dir().is_dir() else "plans after the first run"
    text = f"reading installed packages and code once: {later} take under a second"
    return said_after(_PATIENCE_SECONDS, text)


def add_dispatch_argument(parser: argparse.ArgumentParser) -> None:
    """An unknown backend is not refused here: listing all of them would cost 30 ms."""
    parser.add_argument(
        "--dispatch",
        default="inline",
        metavar="BACKEND",
        help="where stages run that ask for GPUs: inline (here), gpu-pool, ray-job, or another",
    )


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """What every command takes that runs something."""
    add_dispatch_argument(parser)
    parser.add_argument("--dry-run", action="store_true", help="stop after the plan")
    parser.add_argument(
        "--prefect",
        action="store_true",
        help="as a flow of Prefect also where no server runs: a temporary one is started",
    )


def add_cost_arguments(parser: argparse.ArgumentParser) -> None:
    """What `affordable` reads."""
    parser.add_argument(
        "--gpu-rate",
        type=float,
        metavar="MONEY",
        help="what a GPU hour costs; the plan then tells the sum (default: FOUNDRY_GPU_RATE)",
    )
    parser.add_argument(
        "--max-gpu-hours",
        type=float,
        metavar="HOURS",
        help="refuse a plan of more, and one of which nobody can say",
    )


def affordable(options: argparse.Namespace, prepared: Prepared) -> Cost:
    """What a plan costs. FoundryError where that is more than is allowed."""
    cost = prepared.cost(stated_rate(options.gpu_rate))
    check_affordable(cost, options.max_gpu_hours)
    return cost


def needs_work(prepared: Prepared) -> bool:
    """Whether anything runs or is linked: else Prefect is never imported."""
    return any(row.action == "run" or row.how == "content" for row in prepared.plan.stages.values())


def carry_out(
    work: "Work", prepared: Prepared, plan: str, console: "Console", folder: Path, prefect: bool
) -> "RunResult":
    """Runs what is prepared and returns it as JSON: as a flow of the Prefect server, if there is
    one. plan: for a page that renders Markdown. folder: of the run. prefect: with a temporary
    server where there is none, which costs some 10 s."""
    from flows.prefect import server_named
    from flows.prefect.addresses import run_page, served

    if needs_work(prepared) and (url := served()):
        console.say(f"watch it at {url}{run_page(folder.name)}")
    if needs_work(prepared) and (prefect or server_named()):
        with contextlib.suppress(OSError):  # who cannot write hears it from the run
            home_dir().mkdir(parents=True, exist_ok=True)  # Prefect's lies in it
        from flows.foundry import run_locally

        return run_locally(work, plan, console, folder)
    from flows.runs.local import carried_out, walk_in_threads

    return carried_out(work, console, lambda: walk_in_threads(work))


def exit_code(status: str) -> int:
    """0 when all came through, else 1."""
    return 0 if status == "succeeded" else 1


def answer(options: argparse.Namespace, value: Any, text: str) -> int:
    """Prints a command's answer, as JSON or for a person; its exit code."""
    if options.json:
        print_json(value)
    else:
        print(text)
    return 0


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=1, default=str))
