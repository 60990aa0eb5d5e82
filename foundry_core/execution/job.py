"""What a stage is when it is ready to run, and what comes of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from foundry_core.pipeline.spec import StageSpec
from foundry_core.store.manifest import Artifact


class StageFailed(RuntimeError):
    """A stage's own failure. `log` is where its output lies."""

    def __init__(self, stage: str, error: str, hint: str, log: Path) -> None:
        told = [hint, f"its log: {log}" if log.is_file() else ""]
        more = "; ".join(filter(None, told))
        super().__init__(f"stage {stage!r} failed: {error}" + (f" ({more})" if more else ""))
        self.stage, self.error, self.hint, self.log = stage, error, hint, log


class Interrupted(RuntimeError):
    """The stage was stopped from outside; its scratch is kept for the next attempt."""


@dataclass(frozen=True, kw_only=True)
class StageJob:
    """A stage ready to run: its identity, its settings, its committed inputs.

    recipe: the full recipe (defaults and locations included), as JSON.
    inputs: slot → label → committed artifact.
    """

    spec: StageSpec
    recipe: Mapping[str, Any]
    resources: Mapping[str, Any]
    inputs: Mapping[str, Mapping[str, Artifact]]
    run_id: str
    log: Path
    force: bool = False
    origin: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a stage came to. action: 'run' when this call did the work."""

    artifact: Artifact
    action: Literal["run", "reuse"]
    how: str
    seconds: float
    attempt: str | None = None


Observer = Callable[[Mapping[str, Any]], None]
