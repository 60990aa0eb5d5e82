"""What a stage runs on here and now, and how that differs from what its artifact was built on, in
words."""

from collections.abc import Sequence

from foundry_core.identity.environment import Environment, environment_of
from foundry_core.pipeline.spec import StageSpec
from foundry_core.pipeline.stage import Resources, Stage

_SHOWN = 3


def stage_environment(stage: type[Stage], spec: StageSpec, resources: Resources) -> Environment:
    """What a stage with these resources runs on, here and now."""
    numerics = stage.numerics(resources)
    return environment_of(spec.packages, spec.variables, resources.gpus, numerics)


def drift_phrase(path: str, old: str, new: str) -> str:
    """path: '<what> <name>' of a Drift."""
    what, _, name = path.partition(" ")
    if what == "variable":  # digests: the values are nobody's business
        before, after = ("set" if value else "unset" for value in (old, new))
        return f"${name} {before}, now {'otherwise' if before == after else after}"
    name = {"cpu": "", "gpu": ""}.get(name, f"{name} ")
    return f"{name}{old or 'absent'}, now {new or 'absent'}"


def drift_line(phrases: Sequence[str]) -> str:
    """One line for all of them, the first few said."""
    more = [f"and {len(phrases) - _SHOWN} more"] if len(phrases) > _SHOWN else []
    return f"built with {'; '.join([*phrases[:_SHOWN], *more])}"
