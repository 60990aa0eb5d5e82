"""A pipeline of one training on imported datasets, run with one budget after the other."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from training_stages import CAPTIONS, HEAD, LANGUAGE, ROBOT, TEXT, VLM, Bench

from flows.runs.engine import PipelineRun
from flows.runs.planning import Prepared, Request, prepare
from foundry_core.store.external import describe
from foundry_core.store.manifest import Artifact

WSD = {"kind": "wsd", "warmup": 2, "decay_fraction": 0.25}
EMA = {"kind": "power"}
KINDS = {
    "text": "convert_text",
    "captions": "convert_captions",
    "robot": "convert_robot",
    "stats": "merge_stats",
    "tokenizer": "train_tokenizer",
}
_SCRATCH_VLM = {**VLM, "language": {"kind": "transformer", **LANGUAGE}}
# What each kind needs besides its training.
MODELS: Mapping[str, Mapping[str, Any]] = {
    "train_llm": {"model": LANGUAGE, "data": {"text": TEXT}},
    "train_vlm": {
        "model": {"kind": "vlm", **_SCRATCH_VLM},
        "data": {"captions": CAPTIONS, "text": {**TEXT, "batch_size": 4}},
    },
    "train_vla": {
        "model": {"head": HEAD, "backbone": {"kind": "vlm", **_SCRATCH_VLM}},
        "data": {"robot": ROBOT, "captions": {**CAPTIONS, "loss_weight": 0.1}},
    },
}


def document(bench: Bench, kind: str, training: Mapping[str, Any], **resources: Any) -> Any:
    """The pipeline as data: its stage `model` is the training."""
    recipe = {**MODELS[kind], "training": {"schedule": WSD, "ema": EMA, **training}}
    wanted = [*recipe["data"], "tokenizer", *(["stats"] if kind == "train_vla" else [])]
    stages: dict[str, Any] = {}
    for name in wanted:
        digest = describe(KINDS[name], str(bench.datasets[name])).content
        place = {"path": str(bench.datasets[name]), "digest": f"sha256:{digest}"}
        stages[name] = {"import": {**place, "kind": KINDS[name]}}
    stages["model"] = {
        "kind": kind,
        "inputs": {name: name for name in wanted},
        "recipe": recipe,
        "resources": {"log_every": 3, **resources},
    }
    return {"name": "budgets", "stages": stages}


class Budgets:
    """Runs of one training in the home of the environment. changes: overrides of `model`."""

    def __init__(self, folder: Path, bench: Bench, kind: str, **resources: Any) -> None:
        self.path = folder / "budgets.yaml"
        folder.mkdir(parents=True, exist_ok=True)
        self.path.write_text(yaml.safe_dump(document(bench, kind, {"steps": 8}, **resources)))

    def plan(self, steps: int, changes: Mapping[str, Any] | None = None) -> Prepared:
        overrides = {"training.steps": steps, **(changes or {})}
        pairs = tuple((f"model.{path}", value) for path, value in overrides.items())
        return prepare(Request(pipeline=str(self.path), overrides=pairs))

    def run(self, steps: int, changes: Mapping[str, Any] | None = None, **options: Any) -> Artifact:
        """The training's artifact."""
        run = PipelineRun(self.plan(steps, changes), **options)
        run.start()
        for name in run.affected():
            run.stage(name)
        run.finish("succeeded")
        return run.artifact("model")


def folder_of(run: Prepared, artifact: Artifact) -> Path:
    return run.store.files_path(artifact)
