"""States that finished stages left for larger budgets of their recipe: which one serves a stage.

A trunk is an artifact of kind `trunk`. Its identity is that of the stage without the budget, over
the contents of its inputs, with the step that it is the state after and what it was computed on.
The family is the same without step and ground: all states that a stage may go on from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from foundry_core.config.canonical import Json, digest
from foundry_core.identity.environment import Environment
from foundry_core.pipeline.drift import drift_line, drift_phrase
from foundry_core.pipeline.spec import ByInput, StageSpec, identity_key
from foundry_core.pipeline.stage import TRUNK, Trunk

KIND = TRUNK
# In scratch: where a stage leaves a state, as `step_name`.
LEFT = "trunks"
# `ground` of a state whose steps were computed on several.
MIXED = "mixed"
_OF_ONE = ("step", "ground")
SEVERAL = "several machines, packages or numbers of workers in turn"


@dataclass(frozen=True, kw_only=True)
class KeptTrunk:
    """A trunk as the store has it. identity: its input-content key. origin: key of the stage that
    left it. problem: what is wrong with its files."""

    key: str
    identity: str
    step: int
    ground: str
    origin: str
    code_fingerprint: str = ""
    built_on: Environment = field(default_factory=Environment)
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Continues:
    """What a stage that runs goes on from. key: the artifact of the stage that left the state, ''
    while that one has to run first: `stage`, of the same plan. differs: what the state was computed
    on that is another one now; the result then equals a straight run's to the rounding of floats,
    else to the bit."""

    step: int
    total: int
    key: str = ""
    trunk: str = ""
    stage: str = ""
    differs: tuple[str, ...] = ()

    def sentence(self) -> str:
        """For the plan."""
        whose = self.key[:12] or self.stage
        close = f", not to the bit: {drift_line(self.differs)}" if self.differs else ""
        return f"continues {whose} from step {self.step} of {self.total}{close}"


@dataclass(frozen=True, kw_only=True)
class Search:
    """The trunk that serves, if one does, and what is said of longer ones that do not."""

    found: Continues | None = None
    refused: tuple[str, ...] = ()


def step_name(step: int) -> str:
    """The folder of the state after so many steps."""
    return f"step_{step:09d}"


def ground_of(environment: Environment, code_fingerprint: str) -> str:
    """The digest of what decides how floats are rounded: the code as it is, and what it runs on."""
    return digest({"environment": environment.to_json(), "code": code_fingerprint})


def trunk_recipe(kind: str, trunk: Trunk, step: int, ground: str) -> dict[str, Json]:
    """The recipe of the state after `step` steps of a stage of this kind."""
    return {"kind": kind, "recipe": trunk.recipe, "step": step, "ground": ground}


def trunk_key(spec: StageSpec, recipe: Mapping[str, Json], inputs: ByInput) -> str:
    """The key of a trunk: over the keys of the inputs, or over their contents."""
    return identity_key(
        kind=KIND,
        code=spec.code,
        recipe=recipe,
        seed=spec.seed,
        sources=spec.sources,
        inputs=inputs,
    )


def family_key(
    *,
    code: str,
    recipe: Mapping[str, Json],
    seed: int,
    sources: Mapping[str, str],
    inputs: ByInput,
) -> str:
    """The family of a trunk that is this."""
    shared = {name: value for name, value in recipe.items() if name not in _OF_ONE}
    return identity_key(
        kind=KIND, code=code, recipe=shared, seed=seed, sources=sources, inputs=inputs
    )


def family_of(spec: StageSpec, trunk: Trunk, inputs: ByInput) -> str:
    """The family that a stage may go on from a member of."""
    return family_key(
        code=spec.code,
        recipe=trunk_recipe(spec.kind, trunk, 0, ""),
        seed=spec.seed,
        sources=spec.sources,
        inputs=inputs,
    )


def search(
    spec: StageSpec,
    trunk: Trunk,
    contents: ByInput,
    now: Environment,
    kept: Sequence[KeptTrunk],
) -> Search:
    """The longest trunk that serves, of those of the stage's family. now: what it would run on."""
    refused: list[str] = []
    for one in sorted(kept, key=lambda one: (-one.step, one.key)):
        if trunk.extend == "never" or not 0 < one.step <= trunk.step:
            continue
        if one.problem:
            refused.append(not_used(one.origin, one.step, f"it is damaged: {one.problem}"))
            continue
        recipe = trunk_recipe(spec.kind, trunk, one.step, one.ground)
        if one.identity != trunk_key(spec, recipe, contents):
            continue  # not of this family, whatever the store's index says
        differs = differences(one, spec, now)
        if differs and trunk.extend == "exact":
            why = f"{drift_line(differs)} (resources.extend=close would)"
            refused.append(not_used(one.origin, one.step, why))
            continue
        found = Continues(
            step=one.step, total=trunk.total, key=one.origin, trunk=one.key, differs=differs
        )
        return Search(found=found, refused=tuple(refused))
    return Search(refused=tuple(refused))


def not_used(origin: str, step: int, why: str) -> str:
    """What is said of a state that could have served."""
    return f"the state of {origin[:12]} after step {step} is not used: {why}"


def differences(kept: KeptTrunk, spec: StageSpec, now: Environment) -> tuple[str, ...]:
    """Why a stage that goes on from this state may round otherwise than a straight run would."""
    if kept.ground == MIXED:
        return (SEVERAL,)
    code = ("other code",) if kept.code_fingerprint != spec.code_fingerprint else ()
    return (*code, *drift_phrases(kept.built_on, now))


def drift_phrases(before: Environment, now: Environment) -> tuple[str, ...]:
    """How two environments differ, in words."""
    drifts = before.drift_to(now)
    return tuple(
        drift_phrase(f"{drift.what} {drift.name}", drift.old, drift.new) for drift in drifts
    )
