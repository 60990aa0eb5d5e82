"""Planning a fully cached pipeline of 20 stages, as a process, beside a `dvc repro` of no work.

    python benchmarks/plan.py [--rounds N]
    python benchmarks/plan.py --seed-runs

--seed-runs: the plan of an ablation of the demo with 200 variants and 5 seeds, on an empty store:
CPU seconds of the command, and the table that it shows.

The pipeline is the demo's with four stages more: real kinds, recipes and code fingerprints. Its
artifacts are placeholders, since planning reads manifests and stats files, not what is in them. DVC
gets a graph of the same shape whose stages copy a line. The two take turns, so that both meet the
same machine; every time is a whole process, start included. Prints one JSON object; the design asks
for less than 0.3 s.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from rows import Row, add_rows_argument, write_rows

from flows.runs.planning import Request, prepare
from foundry_core.config.documents import CONFIG_ROOT
from foundry_core.pipeline.spec import StageSpec
from foundry_core.store.base import Store
from foundry_core.store.catalog import record_run
from foundry_core.store.manifest import Artifact, ArtifactInput, content_digest, scan

_TARGET_SECONDS = 0.3
_FILES = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=11)
    add_rows_argument(parser)
    parser.add_argument("--seed-runs", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.seed_runs:
            plan_many(Path(folder))
            return
        found = measure(Path(folder), options.rounds)
    print(json.dumps(found, indent=1))
    other = found.get("dvc repro", {})
    rows = [
        Row(
            what=f"plan of {found['stages']} cached stages, a whole process, {name}",
            unit="s",
            ours=found["foundry plan"][name],
            beside="dvc repro of no work" if other else "",
            theirs=other.get(name),
        )
        for name in ("median s", "median CPU s")
    ]
    write_rows(options.rows, rows)


def measure(folder: Path, rounds: int) -> dict:
    """Medians over alternating rounds."""
    pipeline = folder / "twenty.yaml"
    pipeline.write_text(yaml.safe_dump(twenty_stages(), sort_keys=False))
    os.environ["FOUNDRY_HOME"] = str(folder / "home")
    graph = fill_store(pipeline)
    plan = [sys.executable, "-m", "flows.cli", "plan", str(pipeline), "--json"]
    if (script := Path(sys.executable).with_name("foundry")).exists():
        plan = [str(script), *plan[3:]]
    planned = json.loads(run(plan, folder))
    actions = [stage["action"] for stage in planned["stages"]]
    assert actions == ["reuse"] * len(graph), actions
    repro = prepare_dvc(folder / "dvc", graph)
    times: dict[str, list[tuple[float, float]]] = {"foundry": [], "dvc": []}
    for _ in range(rounds):
        times["foundry"].append(seconds(plan, folder))
        if repro:
            times["dvc"].append(seconds(repro, folder / "dvc"))
    result = {"stages": len(graph), "rounds": rounds, "target s": _TARGET_SECONDS}
    result["foundry plan"] = found = summary(times["foundry"])
    if not repro:
        return result | {"dvc": "dvc is not installed beside this Python"}
    result["dvc repro"] = other = summary(times["dvc"])
    return result | {"dvc / foundry": round(other["median s"] / found["median s"], 1)}


def plan_many(folder: Path) -> None:
    """Prints the table and what it took."""
    os.environ |= {"FOUNDRY_HOME": str(folder / "home"), "COLUMNS": "160"}
    steps = ",".join(str(10 * number) for number in range(1, 21))
    rates = ",".join(f"{number}e-4" for number in range(1, 11))
    line = [sys.executable, "-m", "flows.cli", "ablate", "demo", "--seeds", "5", "--dry-run"]
    line += [
        "--vary",
        f"llm.training.steps={steps}",
        "--vary",
        f"vla.training.optimizer.lr={rates}",
    ]
    (folder / "home").mkdir()
    run(line, folder)  # the fingerprints of code and packages are kept
    wall, cpu = seconds(line, folder)
    shown = run(line, folder)
    print(shown)
    print(json.dumps({"lines": len(shown.splitlines()), "wall s": round(wall, 1), "CPU s": cpu}))


def summary(times: Sequence[tuple[float, float]]) -> dict[str, float]:
    """On a busy machine the wall clock measures the others; the CPU time says what it would be."""
    walls, cpus = zip(*times, strict=True)
    return {
        "median s": round(statistics.median(walls), 3),
        "fastest s": round(min(walls), 3),
        "median CPU s": round(statistics.median(cpus), 3),
    }


def twenty_stages() -> dict:
    """The demo's document with more policies and evaluations, of other seeds: 20, or one more."""
    document = yaml.safe_load((CONFIG_ROOT / "pipelines" / "demo.yaml").read_text())
    stages = document["stages"]
    for number in range(1, (21 - len(stages)) // 2 + 1):
        stages[f"vla_{number}"] = stages["vla"] | {"seed": number}
        stages[f"evaluate_{number}"] = stages["evaluate"] | {"inputs": {"policy": f"vla_{number}"}}
    return document | {"name": "twenty"}


def fill_store(pipeline: Path) -> dict[str, list[str]]:
    """Commits a placeholder for every stage; returns stage → upstream stages."""
    prepared = prepare(Request(pipeline=str(pipeline)))
    contents: dict[str, Artifact] = {}
    for name, spec in prepared.specs.items():
        contents[name] = commit(prepared.store, spec, contents)
    record_run(prepared.store, "r1", prepared.pipeline.name, prepared.specs)
    return {
        name: sorted({up for _, _, up in node.upstream()})
        for name, node in prepared.pipeline.stages.items()
    }


def commit(store: Store, spec: StageSpec, done: Mapping[str, Artifact]) -> Artifact:
    attempt, out, _ = store.attempt(spec.key)
    for number in range(_FILES):
        (out / f"file-{number}").write_text(f"{spec.key} {number}\n")
    files = scan(out)
    inputs = tuple(
        ArtifactInput(
            slot=slot,
            label=label,
            stage=up,
            kind=done[up].kind,
            key=done[up].key,
            content=done[up].content,
        )
        for slot, named in spec.upstream.items()
        for label, up in named.items()
    )
    contents = {
        slot: {label: done[up].content for label, up in named.items()}
        for slot, named in spec.upstream.items()
    }
    artifact = Artifact(
        kind=spec.kind,
        key=spec.key,
        content=content_digest(files),
        input_content_key=spec.input_content_key(contents),
        code=spec.code,
        code_fingerprint=spec.code_fingerprint,
        recipe=spec.recipe_json,
        seed=spec.seed,
        sources=spec.sources,
        inputs=inputs,
        files=files,
        metrics={},
        attempt=attempt,
        run_id="r1",
        created="2026-01-01T00:00:00.000000Z",
        seconds=1.0,
    )
    store.commit(artifact, out)
    return artifact


def prepare_dvc(folder: Path, graph: Mapping[str, Sequence[str]]) -> list[str] | None:
    """A repository with the same graph, reproduced once; the command that does nothing again."""
    script = Path(sys.executable).with_name("dvc")
    command = str(script) if script.exists() else shutil.which("dvc")
    if command is None:
        return None
    folder.mkdir()
    (folder / "source").write_text("source\n")
    stages = {}
    for name, upstream in graph.items():
        needs = [f"{up}.out" for up in upstream] or ["source"]
        stages[name.replace("_", "-")] = {
            "cmd": f"cat {' '.join(needs)} > {name}.out && echo {name} >> {name}.out",
            "deps": needs,
            "outs": [f"{name}.out"],
        }
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    run([command, "init", "--no-scm", "--quiet"], folder)
    run([command, "config", "core.analytics", "false"], folder)
    run([command, "repro", "--quiet"], folder)
    return [command, "repro", "--quiet"]


def run(command: Sequence[str], folder: Path) -> str:
    environment = os.environ | {"DVC_NO_ANALYTICS": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def seconds(command: Sequence[str], folder: Path) -> tuple[float, float]:
    """(wall, CPU) of one process and its children."""
    started, before = time.perf_counter(), os.times()
    run(command, folder)
    after = os.times()
    cpu = after.children_user + after.children_system
    return time.perf_counter() - started, cpu - before.children_user - before.children_system


if __name__ == "__main__":
    main()
