"""What a person fills in to start a run: small models that Prefect's UI renders as forms.

The same models take `prefect deployment run -p ...` and the API. Unknown fields are refused at
every level: Prefect itself would drop a typing error inside a nested model without a word.
"""

from enum import Enum
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from flows.ablation.drivers.base import DRIVERS
from flows.ablation.plan import MOST_SEEDS
from flows.ablation.search import SearchRequest, asked_search
from flows.ablation.space import Dimension, dimension, space_of
from flows.ablation.studies import Study, find_study
from flows.ablation.variants import AblationRequest, Variant, Vary, asked_sample, axis
from flows.deployment.settings import path_of
from flows.dispatch.base import BACKENDS
from flows.runs.planning import Request
from foundry_core.config.documents import pipeline_names
from foundry_core.config.parsing import parse_yaml
from foundry_core.errors import FoundryError
from foundry_core.evaluation.design import Family, Rule


def _choice(name: str, values: list[str]) -> Any:
    """A drop-down of the UI: what this installation has when the deployment is applied."""
    return Enum(name, {value: value for value in values})


PipelineName = _choice("PipelineName", pipeline_names())
DispatchName = _choice("DispatchName", BACKENDS.names())
DriverName = _choice("DriverName", DRIVERS.names())


class Form(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _spelled(value: Any) -> Any:
    """Numbers and flags as the text a person would type; scripts send them as they are."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


Text = Annotated[str, BeforeValidator(_spelled)]


# Forms whose field `path` is a drop-down in the browser (settings.with_choices).
WITH_PATHS = ("Override", "Axis", "Drawn")


class Override(Form):
    path: str = Field(title="Path", description="e.g. llm.training.steps")
    value: Text = Field(title="Value", description="in YAML: 400, 1e-3, true, [a, b]")

    def pair(self) -> tuple[str, Any]:
        """Path and value; FoundryError for what is no YAML."""
        path = path_of(self.path)
        return path, parse_yaml(self.value, f"override {path!r}")


class Axis(Form):
    path: str = Field(title="Path", description="e.g. llm.training.steps")
    values: Text = Field(title="Values", description="separated by commas, e.g. 100, 200, 400")

    def vary(self) -> Vary:
        path = path_of(self.path)
        return axis(path, parse_yaml(f"[{self.values}]", f"values of {path!r}"))


class Drawn(Form):
    """A setting of a space."""

    path: str = Field(title="Path", description="e.g. vla.training.optimizer.lr")
    values: Text = Field(
        title="Values",
        description="some of 1, 2, 4; or a range: {low: 1e-4, high: 1e-2, log: true}",
    )

    def dimension(self) -> tuple[str, Dimension]:
        """The path and what it may be. Values without brackets are choices."""
        path = path_of(self.path)
        stated = parse_yaml(f"[{self.values}]", f"space {path!r}")
        whole = len(stated) == 1 and isinstance(stated[0], list | dict)
        return path, dimension(path, stated[0] if whole else stated)


class NamedVariant(Form):
    name: str = Field(title="Name", description="what tables and curves call it")
    overrides: list[Override] = Field(
        title="Overrides", min_length=1, description="what the variant changes"
    )

    def variant(self) -> Variant:
        return Variant(name=self.name, overrides=tuple(one.pair() for one in self.overrides))


def request(
    pipeline: Enum, overrides: list[Override], stages: list[str], force: list[str]
) -> Request:
    """What the form of foundry/full asks for."""
    return Request(
        pipeline=pipeline.value,
        overrides=tuple(one.pair() for one in overrides),
        only=tuple(stages),
        force=tuple(force),
    )


def ablation_request(
    pipeline: Enum,
    vary: list[Axis],
    variants: list[NamedVariant],
    seeds: int,
    overrides: list[Override],
    evaluation: str,
    *,
    looks: int = 0,
    spending: Rule | None = None,
    family: Family | None = None,
    study: str = "",
    space: list[Drawn] = [],  # noqa: B006
    sample: int = 0,
    sample_seed: int = 0,
) -> AblationRequest:
    """What the form of foundry/ablation asks for. Without looks nothing else of a design counts:
    the form always has values for it."""
    asked = AblationRequest(
        pipeline=pipeline.value,
        vary=tuple(one.vary() for one in vary),
        variants=tuple(one.variant() for one in variants),
        sample=asked_sample(
            space_of(one.dimension() for one in space), sample or None, sample_seed
        ),
        seeds=seeds,
        overrides=tuple(one.pair() for one in overrides),
        evaluation=evaluation or None,
        **_design(looks, spending, family),
    )
    found = _study(study)
    return found.request(asked, seeds if seeds > 1 else None) if found else asked


def search_request(
    pipeline: Enum,
    space: list[Drawn],
    variants: int,
    driver: Enum,
    rungs: list[Axis],
    seeds: int,
    overrides: list[Override],
    evaluation: str,
    *,
    looks: int = 0,
    spending: Rule | None = None,
    study: str = "",
    reduction: int = 3,
    finalists: int = 1,
    batch: int = 4,
    search_seed: int = 0,
) -> SearchRequest:
    """What the form of foundry/search asks for."""
    base = AblationRequest(
        pipeline=pipeline.value,
        seeds=seeds,
        overrides=tuple(one.pair() for one in overrides),
        evaluation=evaluation or None,
        **_design(looks, spending, None),
    )
    return asked_search(
        _study(study),
        base,
        space_of(one.dimension() for one in space),
        variants or None,
        driver=driver.value,
        seed=search_seed,
        batch=batch,
        budgets=rungs[0].vary() if rungs else None,
        reduction=reduction,
        finalists=finalists,
    )


def _design(looks: int, spending: Rule | None, family: Family | None) -> dict[str, Any]:
    return {"looks": looks, "spending": spending, "family": family} if looks else {}


def _study(name: str) -> Study | None:
    """FoundryError for a name that is none."""
    if not name:
        return None
    found = find_study(name)
    if found is None:
        raise FoundryError(f"{name!r} is a pipeline and no study", "set it as the pipeline")
    return found


Seeds = Annotated[int, Field(ge=1, le=MOST_SEEDS)]
Count = Annotated[int, Field(ge=0)]
Some = Annotated[int, Field(ge=1)]
Reduction = Annotated[int, Field(ge=2)]
Hours = Annotated[float, Field(ge=0)]
Rungs = Annotated[list[Axis], Field(max_length=1)]
