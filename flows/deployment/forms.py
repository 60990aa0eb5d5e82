"""What a person fills in to start a run: small models that Prefect's UI renders as forms.

The same models take `prefect deployment run -p ...` and the API. Unknown fields are refused at
every level: Prefect itself would drop a typing error inside a nested model without a word.
"""

from enum import Enum
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from flows.ablation.plan import MOST_SEEDS
from flows.ablation.variants import AblationRequest, Variant, Vary, axis
from flows.deployment.settings import path_of
from flows.dispatch.base import BACKENDS
from flows.runs.planning import Request
from foundry_core.config.documents import pipeline_names
from foundry_core.config.parsing import parse_yaml
from foundry_core.evaluation.design import Family, Rule


def _choice(name: str, values: list[str]) -> Any:
    """A drop-down of the UI: what this installation has when the deployment is applied."""
    return Enum(name, {value: value for value in values})


PipelineName = _choice("PipelineName", pipeline_names())
DispatchName = _choice("DispatchName", BACKENDS.names())


class Form(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _spelled(value: Any) -> Any:
    """Numbers and flags as the text a person would type; scripts send them as they are."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


Text = Annotated[str, BeforeValidator(_spelled)]


# Forms whose field `path` is a drop-down in the browser (settings.with_choices).
WITH_PATHS = ("Override", "Axis")


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
    evaluation: str | None,
    looks: int = 0,
    spending: Rule | None = None,
    family: Family | None = None,
) -> AblationRequest:
    """What the form of foundry/ablation asks for. Without looks nothing else of a design counts:
    the form always has values for it."""
    return AblationRequest(
        pipeline=pipeline.value,
        vary=tuple(one.vary() for one in vary),
        variants=tuple(one.variant() for one in variants),
        seeds=seeds,
        overrides=tuple(one.pair() for one in overrides),
        evaluation=evaluation or None,
        looks=looks or None,
        spending=spending if looks else None,
        family=family if looks else None,
    )


Seeds = Annotated[int, Field(ge=1, le=MOST_SEEDS)]
Looks = Annotated[int, Field(ge=0)]
