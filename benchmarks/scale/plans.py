"""Stages of a pipeline, all of them never built: an ablation's merged graph is as large."""

import json
from pathlib import Path

import yaml
from measured import Clock, Part, Row, growing

from flows.runs.planning import Request, prepare
from foundry_core.config.documents import CONFIG_ROOT, load_document


def measure(folder: Path, stages: int) -> Row:
    """The demo's document with more and more policies and evaluations."""
    document = json.loads(json.dumps(load_document(CONFIG_ROOT / "pipelines" / "demo.yaml")))
    base = dict(document["stages"])
    for number in range(1, max(2, (stages - len(base)) // 2 + 1)):
        document["stages"][f"vla_{number}"] = base["vla"] | {"seed": number}
        document["stages"][f"evaluate_{number}"] = base["evaluate"] | {
            "inputs": {"policy": f"vla_{number}"}
        }
    path = folder / "many.yaml"
    path.write_text(yaml.safe_dump(document | {"name": "many"}, sort_keys=False))
    clock = Clock()
    found = prepare(Request(pipeline=str(path)))
    planned, clock = clock.cpu, Clock()
    prepare(Request(pipeline=str(path)))
    return {"stages": len(found.specs), "CPU s of the first plan": planned, "CPU s": clock.cpu}


PART = Part(sizes=(20, *growing(600)), measure=measure)
