"""What the parent and the child of an attempt tell each other, in files of a control folder.

job.json and result.json are read by one version of the program, that of the parent: the child
refuses to run from other packages.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from foundry_core.execution.job import StageJob
from foundry_core.execution.python import package_origins
from foundry_core.files import read_json, write_atomic
from foundry_core.pipeline.stage import Begin, InputArtifact

JOB = "job.json"
RESULT = "result.json"
PROGRESS = "progress.json"
READS = "reads"
Inputs = Mapping[str, Mapping[str, InputArtifact]]


@dataclass(frozen=True, kw_only=True)
class Folders:
    """What an attempt works in. checkpoints, begin: as in StageContext. store: the address of the
    object store that hosts without this one's disk share; "" where it is on a disk."""

    out: Path
    scratch: Path
    checkpoints: str
    store: str = ""
    begin: Begin | None = None


def write_job(control: Path, job: StageJob, inputs: Inputs, folders: Folders) -> None:
    """All that the stage's process needs to know. inputs: folders that stay until it has ended."""
    plain = {
        "parent": os.getpid(),
        "origins": package_origins(),
        "spec": job.spec.to_json(),
        "resources": job.resources.model_dump(mode="json"),
        "inputs": {
            slot: {label: asdict(artifact) for label, artifact in named.items()}
            for slot, named in inputs.items()
        },
        **asdict(folders),
    }
    write_atomic(control / JOB, json.dumps(plain, default=os.fspath), durable=False)


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Of a process and its children. peak_memory: bytes."""

    cpu_seconds: float
    peak_memory: int


@dataclass(frozen=True, kw_only=True)
class ChildResult:
    """What a stage came to: its metrics, or why it failed; what it ran on, and which files
    it read that its key does not know."""

    metrics: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    hint: str = ""
    usage: Usage | None = None
    built_on: Mapping[str, Any] = field(default_factory=dict)
    undeclared_reads: Sequence[str] = ()

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
