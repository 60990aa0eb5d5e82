"""A pipeline of one training on imported datasets, run with one budget after the other."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from training_stages import CAPTIONS, HEAD, LANGUAGE, ROBOT, TEXT, VLM, Bench

from flows.runs.engine import PipelineRun
from flows.runs.planning import Prepared, Request, prepare
from foundry_core.files import walk
from foundry_core.objects import connect
from foundry_core.store.external import describe
from foundry_core.store.manifest import Artifact

WSD = {"kind": "wsd", "warmup": 2, "decay_fraction": 0.25}
KINDS = {
    "text": "convert_text",
    "captions": "convert_captions",
    "robot": "convert_robot",
    "stats": "merge_stats",
    "tokenizer": "train_tokenizer",
}
_VLM = {**VLM, "language": {"kind": "transformer", **LANGUAGE}}
# What each kind needs besides its training; the last two mix modalities.
MODELS: Mapping[str, Mapping[str, Any]] = {
    "train_llm": {"model": LANGUAGE, "data": {"text": TEXT}},
    "train_vlm": {
        "model": {"kind": "vlm", **_VLM},
        "data": {"captions": CAPTIONS, "text": {**TEXT, "batch_size": 4}},
    },
    "train_vla": {
        "model": {"head": HEAD, "backbone": {"kind": "vlm", **_VLM}},
        "data": {"robot": ROBOT, "captions": {**CAPTIONS, "loss_weight": 0.1}},
    },
}


class Budgets:
    """Runs of one training in the home of the environment. bucket: where datasets are copied to,
    for stores that see no path. resources: of the stage `model`."""

    def __init__(
        self, folder: Path, bench: Bench, kind: str, *, bucket: str = "", **resources: Any
    ) -> None:
        self.path = folder / "budgets.yaml"
        training = {"steps": 8, "schedule": WSD, "ema": {"kind": "power"}}
        recipe = {**MODELS[kind], "training": training}
        wanted = [*recipe["data"], "tokenizer", *(["stats"] if kind == "train_vla" else [])]
        stages: dict[str, Any] = {
            name: {"import": imported(KINDS[name], bench.datasets[name], bucket)} for name in wanted
        }
        stages["model"] = {
            "kind": kind,
            "inputs": {name: name for name in wanted},
            "recipe": recipe,
            "resources": {"log_every": 3, **resources},
        }
        folder.mkdir(parents=True, exist_ok=True)
        self.path.write_text(yaml.safe_dump({"name": "budgets", "stages": stages}))

    def plan(self, steps: int, **changes: Any) -> Prepared:
        """changes: overrides of `model`, with `__` for dots."""
        values = {"training.steps": steps} | {
            name.replace("__", "."): value for name, value in changes.items()
        }
        pairs = tuple((f"model.{path}", value) for path, value in values.items())
        return prepare(Request(pipeline=str(self.path), overrides=pairs))

    def run(self, steps: int, **changes: Any) -> tuple[Artifact, Path]:
        """The training's artifact, and the folder with its files."""
        run = PipelineRun(self.plan(steps, **changes))
        run.start()
        for name in run.affected():
            run.stage(name)
        run.finish("succeeded")
        artifact = run.artifact("model")
        return artifact, run.prepared.store.files_path(artifact)


def imported(kind: str, folder: Path, bucket: str) -> dict[str, str]:
    """The `import` of a dataset's folder, or of a copy below an address."""
    where, place = "path", str(folder)
    if bucket:
        where, place = "uri", f"{bucket}/{folder.name}"
        for name, path in walk(folder):
            connect(place).upload(Path(path), name)
    digest = describe(kind, place).content
    return {where: place, "kind": kind, "digest": f"sha256:{digest}"}


def equal_files(one: Path, other: Path, *names: str) -> bool:
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)
