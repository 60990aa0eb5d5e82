"""Runs stages with hand-made contexts, the training stages on tiny synthetic datasets."""

import json
from pathlib import Path
from typing import Any

from foundry_core.data.text.tokenizer import Tokenizer
from foundry_core.pipeline.registry import stage_kind
from foundry_core.pipeline.stage import InputArtifact, Stage, StageContext
from tests.synthetic import make_captions, make_robot, make_text

TRAINING = {"steps": 6, "schedule": {"warmup": 2}, "ema": {"kind": "fixed", "decay": 0.9}}
LANGUAGE = {"dim": 16, "n_layers": 4, "n_heads": 2, "ffn_dim": 32, "context": 32}
VISION = {"kind": "conv_vit", "image_size": 16, "dim": 8, "n_layers": 1, "n_heads": 2}
VLM = {
    "vision": {**VISION, "stem_dims": [8, 8], "stem_groups": 4},
    "projector": {"pixel_shuffle": 2},
}
HEAD = {"kind": "flow", "dim": 16, "n_layers": 2, "n_heads": 2, "ffn_dim": 32, "steps": 4}
TEXT = {"batch_size": 8}
CAPTIONS = {"batch_size": 4, "images": ["front", "wrist"]}
ROBOT = {"batch_size": 4, "inputs": {"cameras": ["front", "wrist"], "horizon": 8}}


def run_stage(
    kind: type[Stage],
    out: Path,
    scratch: Path,
    recipe: Any,
    inputs: dict[str, dict[str, Path]],
    **more: Any,
) -> dict[str, Any]:
    """The stage's metrics. inputs: slot → label → folder; more: as stage_context takes."""
    return dict(kind.run(stage_context(kind, out, scratch, recipe, inputs, **more)))


def stage_context(
    kind: type[Stage],
    out: Path,
    scratch: Path,
    recipe: Any,
    inputs: dict[str, dict[str, Path]],
    *,
    name: str = "x",
    seed: int = 0,
    resources: dict[str, Any] | None = None,
    progress: Any = lambda *args, **values: None,
) -> StageContext:
    """What the stage's `run` takes."""
    for folder in (out, scratch):
        folder.mkdir(parents=True, exist_ok=True)
    artifacts = {
        slot: {
            label: InputArtifact(path=path, stage=label, kind="", key=label, content=label)
            for label, path in several.items()
        }
        for slot, several in inputs.items()
    }
    return StageContext(
        name=name,
        key=name,
        seed=seed,
        recipe=kind.Recipe.model_validate(recipe),
        resources=kind.Resources.model_validate(resources or {}),
        inputs=artifacts,
        out=out,
        scratch=scratch,
        progress=progress,
    )


class Bench:
    """Datasets in `root`, and stages run on them: `stage("llm", "train_llm", ...)`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.datasets = {
            "text": make_text(root / "text"),
            "captions": make_captions(root / "captions"),
            "robot": make_robot(root / "robot"),
            "stats": root / "robot",
            "tokenizer": root / "tokenizer",
        }
        Tokenizer.train(["some text"], 258).save(root / "tokenizer")

    def stage(
        self,
        name: str,
        kind: str,
        recipe: dict[str, Any],
        inputs: dict[str, str],
        *,
        seed: int = 0,
        resources: dict[str, Any] | None = None,
    ) -> tuple[Path, dict[str, Any]]:
        """(output folder, metrics). inputs: slot → dataset's or earlier stage's name."""
        out, scratch = self.root / name, self.root / f"{name}.scratch"
        options = {"name": name, "seed": seed, "resources": resources}
        places = self.places(inputs)
        return out, run_stage(stage_kind(kind), out, scratch, recipe, places, **options)

    def places(self, inputs: dict[str, str]) -> dict[str, dict[str, Path]]:
        """slot → label → folder, of the slots' sources."""
        return {
            slot: {slot: self.datasets.get(source, self.root / source)}
            for slot, source in inputs.items()
        }

    def llm(self, name: str = "llm", **options: Any) -> tuple[Path, dict[str, Any]]:
        recipe = {"model": LANGUAGE, "data": {"text": TEXT}, "training": TRAINING}
        inputs = {"text": "text", "tokenizer": "tokenizer"}
        return self.stage(name, "train_llm", recipe, inputs, **options)

    def vlm(self, name: str = "vlm", llm: str | None = "llm", **options: Any):
        recipe = {"model": VLM, "data": {"captions": CAPTIONS}, "training": TRAINING}
        inputs = {"captions": "captions", "llm": llm}
        if llm is None:
            recipe["model"] = {**VLM, "language": {"kind": "transformer", **LANGUAGE}}
            inputs = {"captions": "captions", "tokenizer": "tokenizer"}
        return self.stage(name, "train_vlm", recipe, inputs, **options)

    def vla(self, name: str = "vla", *, changes: dict[str, Any] | None = None, **options: Any):
        recipe = {
            "model": {"head": HEAD},
            "data": {"robot": ROBOT, "captions": {**CAPTIONS, "loss_weight": 0.1}},
            "training": TRAINING,
            **(changes or {}),
        }
        inputs = {"vlm": "vlm", "robot": "robot", "stats": "stats", "captions": "captions"}
        return self.stage(name, "train_vla", recipe, inputs, **options)


def curve(folder: Path) -> list[dict[str, float]]:
    lines = (folder / "records" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]
