"""How what there is now differs from what an artifact was built on, in words."""

from collections.abc import Sequence

from foundry_core.identity.environment import Drift, Environment, environment_of
from foundry_core.pipeline.spec import StageSpec

_SHOWN = 3


def environment_drift(spec: StageSpec, gpus: float, built_on: Environment) -> list[Drift]:
    """What a stage with so many GPUs would find otherwise, here and now."""
    return built_on.drift_to(environment_of(spec.packages, spec.variables, gpus))


def drift_phrase(path: str, old: str, new: str) -> str:
    """path: '<what> <name>' of a Drift."""
    what, _, name = path.partition(" ")
    if what == "variable":  # digests: the values are nobody's business
        before, after = ("set" if value else "unset" for value in (old, new))
        return f"${name} {before}, now {'otherwise' if before == after else after}"
    return f"{name} {old or 'absent'}, now {new or 'absent'}"


def drift_line(phrases: Sequence[str]) -> str:
    """One line for all of them, the first few said."""
    more = [f"and {len(phrases) - _SHOWN} more"] if len(phrases) > _SHOWN else []
    return f"built with {'; '.join([*phrases[:_SHOWN], *more])}"
