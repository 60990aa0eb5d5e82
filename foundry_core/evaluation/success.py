"""When an episode counts as solved: the rule, its words, and the judge of one episode."""

from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from foundry_core.pipeline.stage import Config


class Held(Config):
    """Solved once it has stayed solved for `held` control steps on end."""

    held: int = Field(ge=1, description="control steps on end for which the task stays solved")


SuccessRule = Literal["ever", "final"] | Held
"""ever: solved at any time, where the episode ends. final: solved after its last step."""


def criterion(rule: SuccessRule, max_steps: Iterable[int]) -> str:
    """'success at any time within 100 steps'. max_steps: of the tasks that are played; none where
    the benchmark keeps its limits to itself."""
    limits = sorted(set(max_steps))
    if not limits:
        return "success at any time within the benchmark's own limit"
    steps = f"{limits[0]} steps" if len(limits) == 1 else f"{limits[0]} to {limits[-1]} steps"
    if rule == "final":
        return f"success after the last of {steps}"
    if isinstance(rule, Held):
        return f"success held for {rule.held} steps within {steps}"
    return f"success at any time within {steps}"


class Judge:
    """Told after every control step whether the task is solved now. at_start: the same before the
    first step, which counts under "ever"."""

    def __init__(self, rule: SuccessRule, at_start: bool) -> None:
        self._final = rule == "final"
        self._needed = rule.held if isinstance(rule, Held) else 1
        self._solved_steps = int(at_start and rule == "ever")

    def step(self, solved: bool) -> None:
        self._solved_steps = self._solved_steps + 1 if solved else 0

    @property
    def success(self) -> bool:
        """Of an episode that ends here."""
        return self._solved_steps >= self._needed

    @property
    def decided(self) -> bool:
        """Whether no further step can change it: the episode is over."""
        return self.success and not self._final
