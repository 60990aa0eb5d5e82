"""The stage contract: what a stage kind declares, and what its `run` is given.

A stage kind is one file in `tasks/` that defines one `Stage` subclass. Its module must import
quickly (no torch, ray, transformers, mujoco at module level): planning loads it, running loads
the rest.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, Protocol, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, model_validator

# `Stage.code` of a kind whose code itself is in the key.
FINGERPRINT = "fingerprint"
# The kind of artifact that a state for larger budgets is: no stage's.
TRUNK = "trunk"
# Of a stage with `trunk`: which state of another budget it went on from, or why not.
CONTINUED = "records/continued.json"


class ArtifactType(StrEnum):
    """What a stage produces; slots are matched on it when the graph is built."""

    TEXT = "RawText"
    DEMONSTRATIONS = "Demonstrations"
    SCENES = "Scenes"
    TEXT_SHARDS = "TextShards"
    CAPTION_SHARDS = "CaptionShards"
    ROBOT_SHARDS = "RobotShards"
    TOKENIZER = "Tokenizer"
    STATISTICS = "Statistics"
    LANGUAGE_MODEL = "LanguageModel"
    VISION_LANGUAGE_MODEL = "VisionLanguageModel"
    POLICY = "Policy"
    EVALUATION = "Evaluation"
    QUALITY = "Quality"
    COMPARISON = "Comparison"


# What training stages make.
MODELS = (
    ArtifactType.LANGUAGE_MODEL,
    ArtifactType.VISION_LANGUAGE_MODEL,
    ArtifactType.POLICY,
)


class Config(BaseModel):
    """Base of every config object: frozen, keyword-only, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _truth_is_no_number(cls, data: Any) -> Any:
        """`steps: yes` would be one step."""
        for name, value in data.items() if isinstance(data, dict) else ():
            if isinstance(value, bool) and name in _numbers(cls):
                raise ValueError(f"{name} = {value} is not a number")
        return data


@cache
def _numbers(config: type[Config]) -> frozenset[str]:
    """The fields that hold one number, or none."""
    fields = config.model_fields.items()
    return frozenset(n for n, info in fields if _types(info.annotation) <= {int, float, NoneType})


def _types(annotation: Any) -> set[Any]:
    if hasattr(annotation, "__metadata__"):
        return _types(annotation.__origin__)
    if get_origin(annotation) in (Union, UnionType):
        return {kind for part in get_args(annotation) for kind in _types(part)}
    return {annotation}


class Recipe(Config):
    """Everything that can change a stage's result. Enters the stage's identity."""


class Resources(Config):
    """Everything that must not change a stage's result, beyond the rounding of floats
    (`Stage.numerics`). Never enters the identity."""

    cpus: int = Field(1, ge=1, description="CPU cores the stage may use (threads or Ray workers)")
    gpus: float = Field(0, ge=0, description="GPUs the stage asks for; fractions share one")


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A typed input. `many` slots take several named artifacts of the same type(s)."""

    types: tuple[ArtifactType, ...]
    many: bool = False
    optional: bool = False


def slot(*types: ArtifactType, many: bool = False, optional: bool = False) -> Slot:
    return Slot(types=types, many=many, optional=optional)


@dataclass(frozen=True, kw_only=True)
class InputArtifact:
    """A committed upstream artifact as `run` sees it: a read-only local directory."""

    path: Path
    stage: str
    kind: str
    key: str
    content: str


@dataclass(frozen=True, kw_only=True)
class Trunk:
    """What a stage's work shares with that of other budgets of its recipe (`Stage.trunk`).

    recipe: what decides the shared part, as canonical JSON. step: where it ends, of `total`. keep:
    whether its state is to stay in the store. extend: which states of other budgets serve: those
    that are equal to the bit (exact), to the rounding of floats (close), none (never).
    """

    recipe: Mapping[str, Any]
    step: int
    total: int
    keep: bool
    extend: Literal["exact", "close", "never"]


@dataclass(frozen=True, kw_only=True)
class Begin:
    """The state that a smaller budget's stage left after `step` steps, in a folder of `path`. key:
    that stage's artifact; trunk: the state's own."""

    path: Path
    step: int
    key: str
    trunk: str


# (slot, setting, file) → what the first stage in a slot says: its recipe, else the JSON file of its
# artifact; None where neither is known yet.
Fact = Callable[[str, str, str], Any]


@dataclass(frozen=True, kw_only=True)
class Work:
    """How much a recipe asks for (`Stage.work`): of two recipes of a kind with the same unit, the
    one with twice the amount is expected to take twice as long. steps: into which it divides
    evenly, where it does."""

    unit: str
    amount: float
    steps: int | None = None

    def after(self, step: int) -> "Work":
        """What remains after the first of its steps."""
        if not self.steps:
            return self
        return replace(self, amount=self.amount * max(0.0, 1 - step / self.steps))


class Progress(Protocol):
    """Called by `run` as often as it likes; rendering is throttled by the receiver."""

    def __call__(self, done: float, total: float, message: str = "", **values: float) -> None: ...


class Elsewhere(Protocol):
    """How processes of a stage on another host, which sees nothing of this one's disk, get at what
    the stage reads, and how what they write gets here: through the store. Can be pickled."""

    def context(self, ctx: "StageContext", rank: int) -> AbstractContextManager["StageContext"]:
        """There: the same work in folders of that host, which stay while the block runs. rank: of
        this process among those of the stage."""

    def give(self, ctx: "StageContext") -> Any:
        """There: sends what lies in the folders of such a context; a receipt, which can be
        pickled."""

    def take(self, ctx: "StageContext", receipt: Any) -> None:
        """Here: receives it into the folders of the stage's own context."""


@dataclass(frozen=True, kw_only=True)
class StageContext:
    """What `run` works with.

    out: empty directory of this attempt; everything in it is committed. Files under
        `out/records/` are kept and digested too but do not enter the content digest: logs,
        timings, `records/metrics.jsonl` ({"step": int, <name>: number...} per line),
        `records/episodes.jsonl` ({"task", "scenario", "success", "steps", "seconds", "crash",
        "seed"}), `records/scores.jsonl` (`foundry_core.evaluation.score` writes both) and
        `records/measures.jsonl` (`foundry_core.evaluation.quality`).
    scratch: survives failed attempts of the same key and is deleted after the commit; training
        checkpoints live here, so that the next attempt resumes.
    checkpoints: an address in an object store for what other hosts shall resume from, like the
        scratch in all else; "" where the scratch itself lies beside the store.
    elsewhere: for processes on hosts without this one's disk; None where the store itself is on a
        disk, which all hosts share then.
    begin: a smaller budget's state to go on from, of a kind with `trunk`. What such a kind leaves
        in `scratch`/trunks/step_<n>/ (`pipeline.trunks`: its state.json lists the grounds) is kept
        in the store; `out`/CONTINUED ({"key", "trunk", "step"}, with "mixed": true after steps on
        several grounds, or {"refused": why}) says what it went on from.
    ground: the digest of what decides how floats are rounded here.
    """

    name: str
    key: str
    seed: int
    recipe: Any
    resources: Any
    inputs: Mapping[str, Mapping[str, InputArtifact]]
    out: Path
    scratch: Path
    progress: Progress
    checkpoints: str = ""
    elsewhere: Elsewhere | None = None
    begin: Begin | None = None
    ground: str = ""

    def input(self, slot_name: str) -> InputArtifact:
        """The artifact of a slot that takes exactly one."""
        (artifact,) = self.inputs[slot_name].values()
        return artifact

    def optional_input(self, slot_name: str) -> InputArtifact | None:
        return next(iter(self.inputs.get(slot_name, {}).values()), None)

    @property
    def records(self) -> Path:
        path = self.out / "records"
        path.mkdir(parents=True, exist_ok=True)
        return path


@dataclass(frozen=True, kw_only=True)
class Upstream:
    """The declaration of an upstream stage, for cross-checks before anything runs. states: what its
    kind says of the artifact it will make; None for an imported one."""

    name: str
    kind: str
    recipe: Recipe
    inputs: Mapping[str, Mapping[str, "Upstream"]] = field(default_factory=dict)
    states: Any = None


class Stage:
    """One stage kind. Subclass, set the class attributes, write `run`.

    code: FINGERPRINT puts the AST hash of `run` and of everything it calls inside our packages into
        the identity; any other string is a declared version (training stages), bumped by hand when
        a change of code changes results.
    seeded: whether `run` reads ctx.seed. Where it does not, no seed enters the identity: another
        seed of the pipeline converts nothing again.
    """

    kind: ClassVar[str]
    output: ClassVar[ArtifactType]
    inputs: ClassVar[Mapping[str, Slot]] = {}
    code: ClassVar[str] = FINGERPRINT
    seeded: ClassVar[bool] = True
    Recipe: ClassVar[type[Recipe]]
    Resources: ClassVar[type[Resources]] = Resources

    @classmethod
    def sources(cls, recipe: Any) -> Mapping[str, str]:
        """Name → content identity of each raw source outside the store. Must be cheap: no reading
        of gigabytes at plan time (use `foundry_core.identity.sources`). A missing source raises
        FoundryError."""
        return {}

    @classmethod
    def check(cls, recipe: Any, inputs: Mapping[str, Mapping[str, Upstream]]) -> None:
        """Cross-check against upstream recipes; raise FoundryError before any device is touched."""

    @classmethod
    def numerics(cls, resources: Any) -> Mapping[str, str]:
        """Name → value of each resource that decides in which order floats are added: recorded
        with the artifact, and drift where it is another one."""
        return {}

    @classmethod
    def trunk(cls, recipe: Any, resources: Any, fact: Fact) -> Trunk | None:
        """What this recipe's work shares with that of other budgets; None where nothing, or where
        the budget is not known yet. Raises FoundryError for a budget that is none."""
        return None

    @classmethod
    def check_resources(cls, recipe: Any, resources: Any) -> None:
        """Raises FoundryError for resources that this recipe cannot use."""

    @classmethod
    def states(cls, recipe: Any, inputs: Mapping[str, Mapping[str, Upstream]]) -> Any:
        """What can be said of the artifact before it is made, for the checks of what is downstream
        (`Upstream.states`); called after `check`."""
        return None

    @classmethod
    def notes(cls, recipe: Any, inputs: Mapping[str, Mapping[str, Upstream]]) -> Sequence[str]:
        """What a reader of the plan should know though it is no error, such as a conversion between
        what one stage gives and this one takes. One line each; called after `check`."""
        return ()

    @classmethod
    def work(cls, recipe: Any, inputs: Mapping[str, Mapping[str, Upstream]]) -> Work | None:
        """How much there is to do, to scale what a past attempt took; None where no number of the
        recipe says it. Called after `check`, at plan time."""
        return None

    @classmethod
    def expected_seconds(
        cls, recipe: Any, resources: Any, inputs: Mapping[str, Mapping[str, Upstream]]
    ) -> float | None:
        """How long it takes by arithmetic, without its start, where nothing like it ever ran here;
        None where no arithmetic tells."""
        return None

    @staticmethod
    def run(ctx: StageContext) -> Mapping[str, Any]:
        """Do the work, write under ctx.out, return flat metrics (JSON scalars)."""
        raise NotImplementedError
