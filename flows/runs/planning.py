"""From a pipeline's name to its plan: what `foundry plan` and every run begin with.

Loads configuration, the store and the baseline; imports neither prefect, ray nor torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from foundry_core.home import store_uri
from foundry_core.pipeline.attempts import known_attempts
from foundry_core.pipeline.cost import Cost, cost_of, resources_of
from foundry_core.pipeline.graph import Pipeline, load_pipeline
from foundry_core.pipeline.plan import Plan, plan
from foundry_core.pipeline.registry import stage_kind
from foundry_core.pipeline.spec import StageSpec, identify
from foundry_core.store.base import Store
from foundry_core.store.catalog import StoreCatalog, load_baseline
from foundry_core.store.open import open_store


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a person asks for: a pipeline with changes. The same for CLI, UI and notebook."""

    pipeline: str
    overrides: tuple[tuple[str, Any], ...] = ()
    only: tuple[str, ...] = ()
    force: tuple[str, ...] = ()
    baseline: str | None = None
    strict_code: bool = False
    strict_env: bool = False
    strict_reads: bool = False


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A request worked out against the store as it is now."""

    request: Request
    pipeline: Pipeline
    specs: Mapping[str, StageSpec]
    plan: Plan
    store: Store

    def cost(self, gpu_rate: float | None = None) -> Cost:
        """Of what would run. gpu_rate: money for a GPU hour."""
        return cost_of(self.plan.to_run(), resources_of(self.pipeline), gpu_rate)


def prepare(request: Request, store: Store | None = None) -> Prepared:
    """Raises FoundryError for every mistake that can be known before a device is touched."""
    pipeline = load_pipeline(request.pipeline, request.overrides, kinds=stage_kind)
    store = store or open_store(store_uri())
    specs = identify(pipeline, strict_code=request.strict_code)
    worked_out = plan(
        pipeline,
        specs,
        StoreCatalog(store, specs.values()),
        baseline=load_baseline(store, pipeline.name, request.baseline),
        only=request.only,
        force=request.force,
        strict_env=request.strict_env,
        attempts=known_attempts(),
    )
    return Prepared(request=request, pipeline=pipeline, specs=specs, plan=worked_out, store=store)
