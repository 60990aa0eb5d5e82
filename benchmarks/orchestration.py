"""What it costs to run stages that do nothing (the walk, the store, the lineage), with Prefect and
without, beside a plain Prefect flow of as many tasks that start as many processes.

    python benchmarks/orchestration.py [--stages 6] [--rounds 3]

Whole processes, start included, in turn; CPU seconds of the process and all that it started, least
of the rounds, per stage. `plain` is what the orchestrator itself needs for a chain of tasks, each a
`python -c pass`, with a temporary server of its own: it records neither inputs nor files.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml
from rows import Row, add_rows_argument, write_rows

_KIND = """
from foundry_core.pipeline.stage import ArtifactType, Recipe, Stage, slot


class PassOnRecipe(Recipe):
    number: int = 0


class PassOn(Stage):
    kind = "pass_on"
    output = ArtifactType.TEXT
    inputs = {"text": slot(ArtifactType.TEXT, optional=True)}
    Recipe = PassOnRecipe

    @staticmethod
    def run(ctx):
        (ctx.out / "text").write_text(str(ctx.recipe.number))
        return {}


STAGE = PassOn
"""
_PLAIN = """
import subprocess, sys
from prefect import flow, task

@task
def work(before):
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return before + 1

@flow(log_prints=False)
def chain(count):
    done = 0
    for _ in range(count):
        done = work(done)
    return done

assert chain(int(sys.argv[1])) == int(sys.argv[1])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stages", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    add_rows_argument(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measured(Path(folder), options.stages, options.rounds)
    for name, seconds in found.items():
        print(f"{name:24} {seconds:6.2f} CPU s in all, {seconds / options.stages:5.2f} per stage")
    count = f"{options.stages} stages that do nothing"
    plain = {"beside": "a plain Prefect flow", "theirs": found["plain"]}
    write_rows(
        options.rows,
        [
            Row(what=f"run of {count}, with Prefect", unit="CPU s", ours=found["prefect"], **plain),
            Row(what=f"run of {count}, no server", unit="CPU s", ours=found["run"], **plain),
            Row(what=f"run of {count} that are there", unit="CPU s", ours=found["cached"], **plain),
        ],
    )


def measured(folder: Path, stages: int, rounds: int) -> dict[str, float]:
    """Least CPU seconds of each way."""
    kinds = folder / "passing_kinds"
    kinds.mkdir()
    (kinds / "__init__.py").touch()
    (kinds / "pass_on.py").write_text(_KIND)
    (folder / "chain.py").write_text(_PLAIN)
    os.environ["PYTHONPATH"] = os.pathsep.join((str(folder), *filter(None, sys.path)))
    os.environ |= {"FOUNDRY_KINDS": "passing_kinds", "PREFECT_LOGGING_LEVEL": "ERROR"}
    found: dict[str, list[float]] = {"run": [], "cached": [], "prefect": [], "plain": []}
    for turn in range(rounds):
        pipeline = folder / f"chain{turn}.yaml"
        pipeline.write_text(yaml.safe_dump(chain(stages, turn)))
        run = [sys.executable, "-m", "flows.cli", "run", str(pipeline), "--json"]
        os.environ["FOUNDRY_HOME"] = str(folder / f"home{turn}")
        found["run"].append(cpu_seconds(run))
        found["cached"].append(cpu_seconds(run))
        os.environ["FOUNDRY_HOME"] = str(folder / f"prefect{turn}")
        found["prefect"].append(cpu_seconds([*run, "--prefect"]))
        os.environ["PREFECT_HOME"] = str(folder / f"plain{turn}")
        found["plain"].append(cpu_seconds([sys.executable, str(folder / "chain.py"), str(stages)]))
        del os.environ["PREFECT_HOME"]
    return {name: min(seconds) for name, seconds in found.items()}


def chain(stages: int, turn: int) -> dict:
    names = [f"s{number}" for number in range(stages)]
    return {
        "name": f"chain{turn}",
        "stages": {
            name: {"kind": "pass_on", "recipe": {"number": turn * stages + number}}
            | ({"inputs": {"text": names[number - 1]}} if number else {})
            for number, name in enumerate(names)
        },
    }


def cpu_seconds(command: list[str]) -> float:
    before = os.times()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    after = os.times()
    spent = after.children_user + after.children_system
    return spent - before.children_user - before.children_system


if __name__ == "__main__":
    main()
