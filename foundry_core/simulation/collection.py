"""What the stages that record in the simulator share. No MuJoCo: planning imports this."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Generic, Self, TypeVar

from pydantic import Field, model_validator

from foundry_core.config.canonical import OmitWhen
from foundry_core.identity.sources import package_fingerprint
from foundry_core.parallel import ordered_map
from foundry_core.pipeline.stage import Recipe, Stage, StageContext, Upstream, Work
from foundry_core.simulation.catalog import PACKAGES
from foundry_core.simulation.config import DEFAULT_TASKS, RenderConfig, known_tasks
from foundry_core.simulation.experts.base import AnyExpert
from foundry_core.simulation.scenarios import MAX_SLOTS


class CollectRecipe(Recipe):
    """Of a stage that records in a simulator."""

    tasks: tuple[str, ...] = Field(
        DEFAULT_TASKS,
        min_length=1,
        description="tasks to record, of Meta-World or of `expert`'s simulator",
    )
    render: RenderConfig = Field(RenderConfig(), description="what Meta-World's cameras see")
    expert: Annotated[AnyExpert | None, OmitWhen(None)] = Field(
        None, description="of another simulator; null: Meta-World's, as `render` draws it"
    )

    of_meta_world: ClassVar[tuple[str, ...]] = ("render",)
    """Settings that another simulator's expert has itself."""

    @model_validator(mode="after")
    def _one_simulator(self) -> Self:
        if self.expert is None:
            known_tasks(self.tasks)
            return self
        if len(set(self.tasks)) != len(self.tasks):
            raise ValueError(f"tasks {list(self.tasks)} name one twice")
        for name in self.of_meta_world:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is of Meta-World's experts; set it in `expert`")
        return self

    @property
    def packages(self) -> tuple[str, ...]:
        """Installed distributions that what is recorded depends on."""
        return PACKAGES if self.expert is None else self.expert.packages


class CollectDemosRecipe(CollectRecipe):
    of_meta_world: ClassVar[tuple[str, ...]] = ("render", "max_steps")

    episodes_per_task: int = Field(
        100, ge=1, le=MAX_SLOTS, description="demonstrations of each task"
    )
    random_start_steps: int = Field(
        15, ge=0, description="every other episode starts after 0..this many unrecorded steps"
    )
    tail_steps: int = Field(3, ge=1, description="steps recorded from success on")
    max_steps: int = Field(100, ge=1, le=100, description="control steps an expert may take")
    broken_episodes: Annotated[int, OmitWhen(0)] = Field(
        0,
        ge=0,
        description="demonstrations per task whose recorded target jumps by two metres at one "
        "step, as a slipping encoder's would: for studies of what bad data do",
    )


class CollectScenesRecipe(CollectRecipe):
    frames_per_task: int = Field(600, ge=1, description="pictures with captions of each task")
    frames_per_scenario: int = Field(4, ge=1, le=20, description="pictures in a row from one start")
    steps_between: int = Field(3, ge=1, le=5, description="control steps from frame to frame")
    expert_share: float = Field(
        0.5, ge=0, le=1, description="scenarios that begin with some of the expert's work"
    )
    randomized_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="captions that put the instruction in other words, of simulators with some",
    )

    @model_validator(mode="after")
    def _described(self) -> Self:
        if self.expert is not None and not self.expert.describes:
            raise ValueError(f"the expert {self.expert.kind!r} has no words for what it sees")
        return self


R = TypeVar("R", bound=Recipe)
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class CollectJob(Generic[R]):
    """One slot of one task: what is recorded in one go, a pure function of these fields."""

    task: str
    slot: int
    seed: int
    recipe: R


class CollectStage(Stage):
    """A kind that records in a simulator, whose packages are sources."""

    @classmethod
    def sources(cls, recipe: CollectRecipe) -> Mapping[str, str]:
        return {name: package_fingerprint(name) for name in recipe.packages}

    @classmethod
    def check(cls, recipe: CollectRecipe, inputs: Mapping[str, Any]) -> None:
        if recipe.expert is not None:
            recipe.expert.check_tasks(recipe.tasks)

    @classmethod
    def work(
        cls, recipe: CollectRecipe, inputs: Mapping[str, Mapping[str, Upstream]]
    ) -> Work | None:
        return recorded_work(recipe)


def recorded_work(recipe: Recipe) -> Work | None:
    """What a recipe records, and whoever reads it has to read; None where it records nothing."""
    if isinstance(recipe, CollectDemosRecipe):
        return Work(unit="episodes", amount=len(recipe.tasks) * recipe.episodes_per_task)
    if isinstance(recipe, CollectScenesRecipe):
        return Work(unit="frames", amount=len(recipe.tasks) * recipe.frames_per_task)
    return None


def record_slots(
    ctx: StageContext, record: Callable[[CollectJob[Any]], T], slots: int
) -> Iterator[tuple[int, int, T]]:
    """(slots done, slots in all, what was recorded): `slots` of every task, in order whatever the
    number of processes."""
    recipe = ctx.recipe
    jobs = [
        CollectJob(task=task, slot=slot, seed=ctx.seed, recipe=recipe)
        for task in recipe.tasks
        for slot in range(slots)
    ]
    recorded = ordered_map(record, jobs, workers=ctx.resources.cpus)
    for done, result in enumerate(recorded, start=1):
        yield done, len(jobs), result
