"""What the parent and the child of an attempt tell each other, in files of a control folder.

job.json and result.json are read by one version of the program, that of the parent: the child
refuses to run from other packages.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from foundry_core.execution.python import check_origins
from foundry_core.files import read_json, write_atomic
from foundry_core.pipeline.imports import CODE, Import
from foundry_core.pipeline.registry import stage_kind
from foundry_core.pipeline.spec import StageSpec
from foundry_core.pipeline.stage import InputArtifact, Recipe, Resources

JOB = "job.json"
RESULT = "result.json"
PROGRESS = "progress.json"
Inputs = Mapping[str, Mapping[str, InputArtifact]]


def control_folder(out: Path) -> Path:
    """The control folder of the attempt that writes to `out`."""
    return out.parent / f"control-{out.name}"


def recipe_class(kind: str, code: str) -> type[Recipe]:
    """What the recipe of a spec is an instance of."""
    return Import if code == CODE else stage_kind(kind).Recipe


@dataclass(frozen=True, kw_only=True)
class ChildJob:
    """All that a stage's process needs to know. inputs: folders that stay until it has ended."""

    spec: StageSpec
    resources: Resources
    inputs: Inputs
    out: Path
    scratch: Path

    def write(self, control: Path, origins: Mapping[str, str]) -> None:
        """origins: the parent's packages, see `foundry_core.execution.python`."""
        plain = {
            "parent": os.getpid(),
            "origins": dict(origins),
            "spec": self.spec.to_json(),
            "resources": self.resources.model_dump(mode="json"),
            "inputs": {
                slot: {label: _plain(artifact) for label, artifact in named.items()}
                for slot, named in self.inputs.items()
            },
            "out": str(self.out),
            "scratch": str(self.scratch),
        }
        write_atomic(control / JOB, json.dumps(plain), durable=False)

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> "ChildJob":
        """Raises FoundryError when this process is not of the parent's packages, or no longer
        takes the recipe."""
        check_origins(data["origins"])
        spec = data["spec"]
        return cls(
            spec=StageSpec.from_json(spec, recipe_class(spec["kind"], spec["code"])),
            resources=stage_kind(spec["kind"]).Resources.model_validate(data["resources"]),
            inputs={
                slot: {label: _input(artifact) for label, artifact in named.items()}
                for slot, named in data["inputs"].items()
            },
            out=Path(data["out"]),
            scratch=Path(data["scratch"]),
        )


def _plain(artifact: InputArtifact) -> dict[str, Any]:
    return asdict(artifact) | {"path": str(artifact.path)}


def _input(artifact: Mapping[str, Any]) -> InputArtifact:
    return InputArtifact(**{**artifact, "path": Path(artifact["path"])})


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Of a process and its children. peak_memory: bytes."""

    cpu_seconds: float
    peak_memory: int


@dataclass(frozen=True, kw_only=True)
class ChildResult:
    """What a stage came to: its metrics, or why it failed."""

    metrics: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    hint: str = ""
    usage: Usage | None = None

    def write(self, control: Path) -> None:
        # NaN is a metric too: of a loss that diverged.
        write_atomic(control / RESULT, json.dumps(asdict(self)), durable=False)

    @classmethod
    def read(cls, control: Path) -> "ChildResult | None":
        """None when the process left none."""
        try:
            data = read_json(control / RESULT)
        except FileNotFoundError:
            return None
        usage = Usage(**data["usage"]) if data["usage"] else None
        return cls(**{**data, "usage": usage})
