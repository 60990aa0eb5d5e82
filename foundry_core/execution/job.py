"""What a stage is when it is ready to run, and what comes of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from foundry_core.pipeline.spec import ByInput, StageSpec
from foundry_core.pipeline.stage import Resources
from foundry_core.store.manifest import Artifact

Observer = Callable[[Mapping[str, Any]], None]


class StageFailed(RuntimeError):
    """A stage's own failure. `log` is where its output lies."""

    def __init__(self, stage: str, error: str, hint: str, log: Path) -> None:
        known = [hint, f"its log: {log}" if log.is_file() else ""]
        more = "; ".join(filter(None, known))
        super().__init__(f"stage {stage!r} failed: {error}" + (f" ({more})" if more else ""))
        self.stage, self.error, self.hint, self.log = stage, error, hint, log


class Interrupted(RuntimeError):
    """The stage was stopped from outside; its scratch is kept for the next attempt."""


@dataclass(frozen=True, kw_only=True)
class StageJob:
    """A stage ready to run: its identity, its resources, its committed inputs.

    inputs: slot → label → committed artifact. log: where the stage's output goes. force: build it
    although it is committed. job_ref: where it runs for somebody who waits for it, as events say.
    """

    spec: StageSpec
    resources: Resources
    inputs: Mapping[str, Mapping[str, Artifact]]
    run_id: str
    log: Path
    force: bool = False
    job_ref: str | None = None

    @property
    def contents(self) -> ByInput:
        """The content digests of the inputs."""
        return {
            slot: {label: artifact.content for label, artifact in named.items()}
            for slot, named in self.inputs.items()
        }

    @property
    def input_content_key(self) -> str:
        return self.spec.input_content_key(self.contents)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a stage came to. action: 'run' when this call did the work."""

    artifact: Artifact
    action: Literal["run", "reuse"]
    how: str
    seconds: float
    attempt: str | None = None
