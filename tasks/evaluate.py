"""Policy → Evaluation: closed-loop episodes on fresh scenarios of a benchmark."""

import os
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from foundry_core.config.canonical import OmitWhen
from foundry_core.data.contract.matching import Match, match
from foundry_core.data.contract.statements import PolicyContract
from foundry_core.errors import FoundryError
from foundry_core.evaluation.benchmarks.base import DrivenBenchmark
from foundry_core.evaluation.closed_loop import (
    ScenariosRecipe,
    benchmark_of,
    benchmark_sources,
    checked_benchmark,
    episodes_work,
    given_away,
    play,
)
from foundry_core.evaluation.design import Design
from foundry_core.evaluation.quality_recipe import check_device
from foundry_core.pipeline import stage


class Served(stage.Config):
    """A policy that somebody serves. policy: what it is: its name and commit are all that an
    evaluation's identity knows of it. mapping: a serving mapping, where the server is not ours."""

    protocol: Literal["openpi", "vla_eval"] = Field(description="that the server speaks")
    policy: str = Field(
        min_length=1, description="its name and commit: all that the identity knows of it"
    )
    mapping: str = Field(
        "",
        description="serving mapping, by name or file, of a server that is not ours; empty: "
        "fields by their own names",
    )


class EvaluateRecipe(ScenariosRecipe):
    """The seed is the policy's noise."""

    served: Annotated[Served | None, OmitWhen(None)] = Field(
        None, description="in place of an input: a policy behind resources.server"
    )

    design: Annotated[Design | None, OmitWhen(None)] = Field(
        None,
        description="how it may be judged before the budget is played; default: a look a round",
    )
    execute_steps: int | None = Field(
        None, ge=1, description="targets carried out per plan; default: the policy's"
    )
    blank_images: bool = Field(False, description="control: the policy sees grey pictures")
    attribution: Annotated[int, OmitWhen(0)] = Field(
        0, ge=0, description="successes, and failures, of which pictures show what counted"
    )
    record_per_task: int = Field(2, ge=0, description="episodes per task that keep pictures")
    record_failures: Annotated[bool, OmitWhen(False)] = Field(
        False, description="every other episode that fails keeps its video, too"
    )

    @model_validator(mode="after")
    def _looks_fit(self) -> Self:
        budget = self.budget or self.episodes_per_task
        if self.design is not None and (self.design.looks or 1) > budget:
            raise ValueError(f"design.looks {self.design.looks} exceeds the budget {budget}")
        return self


class EvaluateResources(stage.Resources):
    env_workers: int = Field(
        0, ge=0, description="episodes at a time (0: one per cpu); more make larger batches"
    )
    device: str = Field("cpu", description="where the policy runs")
    compile: bool = Field(
        False, description="compile the policy first: for many episodes; rounding differs"
    )
    server: str = Field("", description="host:port of a policy that is served")


class Evaluate(stage.Stage):
    kind = "evaluate"
    output = stage.ArtifactType.EVALUATION
    inputs: ClassVar[Mapping[str, stage.Slot]] = {
        "policy": stage.slot(stage.ArtifactType.POLICY, optional=True)
    }
    Recipe = EvaluateRecipe
    Resources = EvaluateResources

    @classmethod
    def sources(cls, recipe: EvaluateRecipe) -> Mapping[str, str]:
        return benchmark_sources(recipe)

    @classmethod
    def check(
        cls, recipe: EvaluateRecipe, inputs: Mapping[str, Mapping[str, stage.Upstream]]
    ) -> None:
        benchmark = checked_benchmark(recipe)
        if isinstance(benchmark, DrivenBenchmark) and recipe.attribution:
            raise FoundryError(
                f"attribution = {recipe.attribution}: {benchmark.name} plays its episodes in a "
                "program of its own, and cannot play them again with other pictures",
                "leave attribution out",
            )
        if bool(inputs.get("policy")) == (recipe.served is not None):
            raise FoundryError(
                "an evaluation takes the input `policy`, or `served`, and not both",
                "e.g. inputs: {policy: vla}",
            )
        _match(recipe, inputs)

    @classmethod
    def notes(
        cls, recipe: EvaluateRecipe, inputs: Mapping[str, Mapping[str, stage.Upstream]]
    ) -> list[str]:
        found = _match(recipe, inputs)
        return [*(found.notes() if found else []), *given_away(recipe)]

    @classmethod
    def numerics(cls, resources: EvaluateResources) -> Mapping[str, str]:
        found = {"threads": str(resources.cpus)} if resources.device == "cpu" else {}
        return {**found, "compiled": "yes"} if resources.compile else found

    @classmethod
    def check_resources(cls, recipe: EvaluateRecipe, resources: EvaluateResources) -> None:
        if bool(resources.server) != (recipe.served is not None):
            raise FoundryError(
                f"server={resources.server!r} and recipe.served={recipe.served} go together",
                "server: host:port, served: {protocol: openpi, policy: its name}",
            )
        if resources.compile and recipe.served is not None:
            raise FoundryError(
                "compile=true is for a policy that is loaded here, recipe.served is elsewhere",
                "leave it out; `foundry policy serve --compile` is for the server",
            )
        check_device(resources)

    @classmethod
    def work(
        cls, recipe: EvaluateRecipe, inputs: Mapping[str, Mapping[str, stage.Upstream]]
    ) -> stage.Work | None:
        return episodes_work(recipe)

    @staticmethod
    def run(ctx: stage.StageContext) -> Mapping[str, Any]:
        from foundry_core.serving.adapted import AdaptedPolicy

        recipe, benchmark = ctx.recipe, benchmark_of(ctx.recipe)
        loaded, identity = _loaded(ctx)
        policy = loaded
        if not isinstance(benchmark, DrivenBenchmark):  # else its protocol's front-end converts
            policy = AdaptedPolicy(loaded, benchmark.contract(), benchmark.name)
        # By content: an equal policy under another key makes an equal evaluation.
        facts = {
            "seed": ctx.seed,
            "blank_images": recipe.blank_images,
            "policy": identity,
        }
        return play(
            ctx,
            policy,
            facts,
            record=recipe.record_per_task,
            record_failures=recipe.record_failures,
            env_workers=ctx.resources.env_workers or None,
            execute_steps=recipe.execute_steps,
            design=recipe.design,
            attribution=recipe.attribution,
        )


def _loaded(ctx: stage.StageContext) -> tuple[Any, str]:
    """(the policy, what it is known by)."""
    recipe, artifact = ctx.recipe, ctx.optional_input("policy")
    if artifact is None:
        from foundry_core.serving.access import TOKEN
        from foundry_core.serving.remote import RemotePolicy

        remote = RemotePolicy(
            recipe.served.protocol,
            ctx.resources.server,
            mapping=recipe.served.mapping,
            execute_steps=recipe.execute_steps,
            token=os.environ.get(TOKEN, ""),
        )
        return remote, f"{recipe.served.protocol}:{recipe.served.policy}"
    from foundry_core.models.inference import Acceleration
    from foundry_core.serving.policy import load_policy

    policy = load_policy(
        artifact.path,
        device=ctx.resources.device,
        blank_images=recipe.blank_images,
        how=Acceleration(compiled=ctx.resources.compile),
    )
    return policy, artifact.content


def _match(
    recipe: EvaluateRecipe, inputs: Mapping[str, Mapping[str, stage.Upstream]]
) -> Match | None:
    """The policy's contract against the benchmark's; None for an imported policy, which states its
    contract when it is loaded."""
    policy = next(iter(inputs.get("policy", {}).values()), None)
    contract = policy.states if policy else None
    if policy is None or not isinstance(contract, PolicyContract):
        return None
    if recipe.execute_steps is not None:
        contract = contract.model_copy(update={"execute_steps": recipe.execute_steps})
    benchmark = benchmark_of(recipe)
    return match(contract, benchmark.contract(), f"policy {policy.name!r}", benchmark.name)


STAGE = Evaluate
