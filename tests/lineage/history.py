"""A small history with everything in it: two runs of one pipeline, the second with another learning
rate of the policy; a reuse, an early cutoff, a lost attempt, a removal, aliases, an ablation."""

from types import SimpleNamespace
from typing import Any

from foundry_core.files import sha256_hex
from foundry_core.lineage.event_types import (
    AblationFinished,
    AblationStarted,
    AliasSet,
    ArtifactCommitted,
    ArtifactRemoved,
    AttemptFinished,
    AttemptStarted,
    Event,
    PlannedInput,
    PlannedStage,
    RunFinished,
    RunStarted,
    StageResolved,
)
from foundry_core.lineage.events import EventLog

GIT = {"commit": "c0ffee" + "0" * 34, "dirty": True, "diff": "+ one line", "diff_digest": "d"}
PROVENANCE = {
    "git": GIT,
    "packages": {"numpy": "2.4.6", "torch": "2.13.0"},
    "hardware": {"cores": 2},
    "host": "box",
    "python": "3.11.7",
    "environment": {"OMP_NUM_THREADS": "1"},
    "command": ["foundry", "run", "demo"],
}
LR_1, LR_2 = 0.001, 0.002


def digest(*parts: Any) -> str:
    return sha256_hex(repr(parts))


class History:
    """Appends the events of runs as the engine does, with a clock of its own."""

    def __init__(self, log: EventLog) -> None:
        self.log = log
        self.ticks = 0

    def add(self, event: Event) -> None:
        self.ticks += 1
        moment = f"2026-05-01T10:{self.ticks // 60:02d}:{self.ticks % 60:02d}.000000Z"
        self.log.append(event, at=moment, event_id=uuid_of(self.ticks))

    def start(self, run_id: str, stages: list[dict[str, Any]], **more: Any) -> None:
        given = {"pipeline": "demo", "git": GIT, "host": "box", "argv": ["foundry"]} | more
        self.add(RunStarted(run_id=run_id, stages=[planned(stage) for stage in stages], **given))

    def finish(self, run_id: str, status: str = "succeeded", **more: Any) -> None:
        self.add(RunFinished(run_id=run_id, status=status, **more))

    def attempt(self, run_id: str, stage: dict[str, Any], attempt: str = "a1", **more: Any) -> None:
        """The start of an attempt at a stage."""
        who = {"key": stage["key"], "kind": stage["kind"], "stage": stage["name"]}
        self.add(AttemptStarted(run_id=run_id, attempt=attempt, **who, **more))

    def build(self, run_id: str, stage: dict[str, Any], **more: Any) -> None:
        """One successful attempt of 10 s, half of them of GPU per unit of `gpus`."""
        attempt = more.pop("attempt", "a1")
        self.attempt(run_id, stage, attempt, pid=7, provenance=PROVENANCE)
        names = ("metric_rows", "episode_rows", "score_rows", "measure_rows")
        rows = {name: more.pop(name, []) for name in names}
        artifact = manifest(stage, run_id) | {"attempt": attempt} | more
        self.add(ArtifactCommitted(artifact=artifact, **rows))
        cost = {"seconds": 10.0, "cpu_seconds": 9.0, "gpu_seconds": 5.0, "peak_memory": 10**6}
        who = {"run_id": run_id, "key": stage["key"], "attempt": attempt}
        self.add(AttemptFinished(state="committed", **who, **cost))
        self.resolve(run_id, stage, "run", stage["key"])

    def resolve(self, run_id: str, stage: dict[str, Any], action: str, key: str, how: Any = None):
        self.add(
            StageResolved(
                run_id=run_id,
                stage=stage["name"],
                key=stage["key"],
                action=action,
                artifact_key=key,
                how=how,
                reasons=stage["reasons"],
            )
        )


def uuid_of(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


def stage(name: str, kind: str, recipe: dict[str, Any], inputs: dict[str, dict], **more: Any):
    edges = [
        {"slot": slot, "label": up["name"], "stage": up["name"], "key": up["key"]}
        for slot, up in inputs.items()
    ]
    key = digest(kind, recipe, more.get("seed", 0), [edge["key"] for edge in edges])
    return {
        "name": name,
        "kind": kind,
        "key": key,
        "action": "run",
        "reasons": [{"category": "MISSING", "path": "never built"}],
        "recipe": recipe,
        "resources": {"cpus": 1},
        "seed": 0,
        "code": "fingerprint:" + digest(kind),
        "code_fingerprint": digest(kind),
        "sources": {},
        "inputs": edges,
    } | more


def planned(stage: dict[str, Any]) -> PlannedStage:
    return PlannedStage(**stage | {"inputs": [PlannedInput(**edge) for edge in stage["inputs"]]})


def manifest(built: dict[str, Any], run_id: str) -> dict[str, Any]:
    """artifact.json, as the store writes it."""
    same = ("key", "kind", "recipe", "seed", "code", "code_fingerprint", "sources")
    inputs = [
        {"kind": edge["stage"], "content": digest("content", edge["key"])} | edge
        for edge in built["inputs"]
    ]
    files = [
        {
            "path": f"shard_{i:06d}.tar",
            "size": 100 + i,
            "sha256": digest(built["key"], i),
            "role": "output",
        }
        for i in range(2)
    ]
    return {name: built[name] for name in same} | {
        "schema": 1,
        "content": digest("content", built["key"]),
        "input_content_key": digest("input-content key", built["key"]),
        "inputs": inputs,
        "files": files,
        "metrics": {"loss": 0.5, "note": "text is no metric"},
        "attempt": "a1",
        "run_id": run_id,
        "created": "2026-05-01T10:00:00.000+00:00",
        "seconds": 10.0,
        "provenance": PROVENANCE,
        "linked_to": None,
    }


def episodes(successes: int, failures: int, crashed: int = 0) -> list[dict[str, Any]]:
    outcomes = [True] * successes + [False] * failures + [None] * crashed
    return [
        {
            "task": "reach" if i % 2 else "push",
            "scenario": i,
            "success": outcome,
            "steps": 40,
            "crash": "solver failed" if outcome is None else None,
            "seed": 2**63 + i,
        }
        for i, outcome in enumerate(outcomes)
    ]


def scores(
    successes: int, n: int, crashed: int, low: float, high: float, task: str = ""
) -> dict[str, Any]:
    """A row of records/scores.jsonl."""
    counts = {"n": n, "successes": successes, "crashed": crashed, "pending": 0}
    return {"task": task, **counts, "rate": successes / n, "low": low, "high": high}


def write_history(log: EventLog) -> SimpleNamespace:
    """The history; returns the stages by name."""
    history = History(log)
    robot = stage("robot", "convert_robot", {"hz": 16}, {}, sources={"demos": digest("raw")})
    stats = stage("stats", "merge_stats", {}, {"datasets": robot})
    policies = [
        stage(
            "vla",
            "train_vla",
            {"training": {"lr": lr, "steps": 100}},
            {"robot": robot, "stats": stats},
        )
        for lr in (LR_1, LR_2)
    ]
    evals = [stage("eval", "evaluate", {"n": 10}, {"policy": policy}) for policy in policies]

    first, second = "20260501T100000-demo-aaaaaa", "20260501T110000-demo-bbbbbb"
    variants = [
        {"variant": "base", "overrides": []},
        {"variant": "lr", "overrides": [["vla.training.lr", LR_2]]},
    ]
    history.add(
        AblationStarted(
            ablation_id="ab-1",
            base_pipeline="demo",
            seeds=[0],
            variants=variants,
            vary={"lr": [LR_2]},
        )
    )
    history.start(
        first,
        [robot, stats, policies[0], evals[0]],
        ablation={"id": "ab-1", "variant": "base"},
        job_ref="prefect:flow-run/f1",
    )
    history.attempt("killed-run", robot, pid=6, provenance=PROVENANCE, job_ref="ray:raysubmit_x")
    lost = {"key": robot["key"], "attempt": "a1", "kind": "convert_robot", "stage": "robot"}
    history.add(AttemptFinished(**lost, state="lost", error="its process died"))
    history.build(first, robot)
    history.build(first, stats)
    losses = [{"step": step, "name": "loss", "value": 1.0 / (step + 1)} for step in (0, 50, 100)]
    history.build(first, policies[0], metric_rows=losses)
    history.build(first, evals[0], episode_rows=episodes(4, 6))
    history.finish(first, seconds=60, metrics={"x": 1})
    history.add(AliasSet(alias="policy@best", key=policies[0]["key"]))

    reused = [part | {"action": "reuse", "reasons": []} for part in (robot, stats)]
    changed = {"category": "CONFIG", "path": "vla.training.lr", "old": LR_1, "new": LR_2}
    policies[1]["reasons"] = [changed]
    history.start(
        second,
        [*reused, policies[1], evals[1]],
        overrides=[["vla.training.lr", LR_2]],
        ablation={"id": "ab-1", "variant": "lr"},
        baseline=first,
    )
    for part in reused:
        history.resolve(second, part, "reuse", part["key"], "recipe")
    history.build(second, policies[1])
    written = [
        scores(9, 10, 2, 0.55, 0.99),
        scores(4, 5, 1, 0.28, 0.99, "reach"),
        scores(5, 5, 1, 0.47, 1.0, "push"),
    ]
    rows = {"episode_rows": episodes(9, 1, crashed=2), "score_rows": written}
    history.build(second, evals[1], **rows)
    history.finish(second, seconds=30, metrics={})
    history.add(AliasSet(alias="policy@best", key=policies[1]["key"]))

    twin = stage("stats", "merge_stats", {"bins": 10}, {"datasets": robot})
    linked = manifest(twin, "third") | {"linked_to": stats["key"], "attempt": ""}
    history.start("third", [twin])
    history.add(ArtifactCommitted(artifact=linked))
    history.resolve("third", twin, "reuse", twin["key"], "content")
    history.add(ArtifactRemoved(kind="convert_robot", key=robot["key"], reason="gc"))
    effect = {"variant": "lr", "path": "vla.training.lr", "old": LR_1, "new": LR_2}
    effect |= {"success": 0.9, "n": 10, "low": 0.56, "high": 0.99, "p_value": 0.02}
    effect |= {"decision": "better", "letters": "b"}
    history.add(AblationFinished(ablation_id="ab-1", status="succeeded", effects=[effect]))
    return SimpleNamespace(
        first=first,
        second=second,
        robot=robot,
        stats=stats,
        twin=twin,
        policies=policies,
        evals=evals,
    )
