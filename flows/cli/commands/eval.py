"""`foundry eval compare SOURCE ...` and `foundry eval power`: statistics of evaluations made
anywhere; `foundry eval watch`. `foundry eval import` and `run` have modules of their own."""

import argparse
import os
from dataclasses import asdict
from pathlib import Path

from flows.cli.commands import eval_import, eval_output, eval_run
from flows.cli.commands.common import answer

_ALPHA = "error rate of the whole family of tests (default .05)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="eval_command", metavar="WHAT", required=True)
    compare = commands.add_parser("compare", help="evaluations side by side, with exact tests")
    compare.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="a results tree or file, a folder with evaluation.json, an artifact's key or name, a "
        "run; LABEL=SOURCE calls it LABEL",
    )
    compare.add_argument("--base", help="hold the others against this one (default: all pairs)")
    compare.add_argument("--alpha", type=float, default=0.05, help=_ALPHA)
    eval_output.add_output_arguments(compare)
    power = commands.add_parser("power", help="how many episodes a comparison needs")
    power.add_argument("--base", type=float, required=True, help="success rate of the base")
    power.add_argument("--variant", type=float, required=True, help="rate worth finding")
    power.add_argument("--alpha", type=float, default=0.05, help=_ALPHA)
    power.add_argument("--power", type=float, default=0.8, help="wanted chance to find it (.8)")
    power.add_argument("--comparisons", type=int, default=1, help="variants that share alpha")
    power.add_argument("--design-effect", type=float, default=1.0, help="of several seeds")
    how = power.add_mutually_exclusive_group()
    how.add_argument("--episodes", type=int, help="instead: the power of so many per arm")
    how.add_argument("--sequential", action="store_true", help="stop as soon as it is clear")
    played = commands.add_parser("run", help="play a policy's episodes of a benchmark")
    eval_run.add_arguments(played)
    watched = commands.add_parser("watch", help="a page with the videos of a run's episodes")
    watched.add_argument("run", metavar="RUN", help="`foundry lineage runs` lists them")
    watched.add_argument(
        "--task", action="append", default=[], metavar="T", help="only this one; may be repeated"
    )
    watched.add_argument(
        "--rrd", metavar="FILE", help="instead: one episode for rerun's viewer (extra rerun)"
    )
    watched.add_argument("--stage", default="", help="with --rrd: of this evaluation")
    watched.add_argument("--scenario", type=int, help="with --rrd: this one")
    come = commands.add_parser("import", help="published results into the store and the lineage")
    eval_import.add_arguments(come)
    for sub in (compare, power, played, watched, come):
        sub.add_argument(
            "--json", action="store_true", default=argparse.SUPPRESS, help="print JSON"
        )


def run(options: argparse.Namespace) -> int:
    actions = {
        "compare": _compare,
        "power": _power,
        "import": eval_import.run,
        "run": eval_run.run,
        "watch": _watch,
    }
    return actions[options.eval_command](options)


def _compare(options: argparse.Namespace) -> int:
    # Many short sums: threads would only wait for each other.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from foundry_core.errors import FoundryError
    from foundry_core.evaluation.comparison.compare import compare
    from foundry_core.evaluation.comparison.groups import parse_groups
    from foundry_core.evaluation.sources import load_sources
    from foundry_core.home import store_uri
    from foundry_core.store.open import open_store

    if not 0 < options.alpha < 1:
        raise FoundryError(f"--alpha {options.alpha} must lie strictly between 0 and 1", "e.g. .05")
    groups = parse_groups(options.group)
    sources, unequal = load_sources(options.sources, lambda: open_store(store_uri()))
    evaluations = {label: one.evaluation for label, one in sources.items()}
    found = compare(evaluations, options.base, options.alpha, groups=groups)
    budgets = {label: one.budget for label, one in evaluations.items()}
    return eval_output.show(options, found, budgets, unequal)


def _watch(options: argparse.Namespace) -> int:
    from flows.reports.episodes_page import write_episode_rerun, write_episodes_page

    if options.rrd:
        file = Path(options.rrd)
        name = write_episode_rerun(
            options.run, file, tasks=options.task, stage=options.stage, scenario=options.scenario
        )
        return answer(options, {"rrd": str(file), "episode": name}, f"{file}: {name}")
    path = str(write_episodes_page(options.run, options.task))
    return answer(options, {"page": path}, path)


def _power(options: argparse.Namespace) -> int:
    from foundry_core.errors import FoundryError
    from foundry_core.evaluation.statistics import power

    question = power.Question(
        base=options.base,
        variant=options.variant,
        alpha=options.alpha,
        power=options.power,
        comparisons=options.comparisons,
        design_effect=options.design_effect,
    )
    found: dict = {"question": asdict(question)}
    several = f" over {options.comparisons} comparisons" if options.comparisons > 1 else ""
    sought = (
        f"to tell {options.variant:g} from {options.base:g} at level {options.alpha:g}{several}"
    )
    if options.episodes is not None:
        if options.episodes < 1:
            raise FoundryError(f"--episodes {options.episodes}: at least 1", "e.g. --episodes 50")
        found["episodes"] = options.episodes
        found["power"] = power.fixed_power(question, options.episodes)
        text = f"{options.episodes} episodes per arm: power {found['power']:.2f} {sought}"
    elif options.sequential:
        found |= asdict(power.sequential_design(question))
        text = (
            f"a budget of {found['n_max']} pairs, looked at after each: power "
            f"{found['power']:.2f}; {found['expected']:.0f} pairs on average if the rates are so, "
            f"{found['expected_if_equal']:.0f} if they are equal; {sought}"
        )
    else:
        found["episodes"] = power.fixed_episodes(question)
        text = (
            f"{found['episodes']} episodes per arm, tested once at the end: power "
            f"{options.power:g} {sought}"
        )
    return answer(options, found, text)
