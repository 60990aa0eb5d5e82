"""Keep-best and early stop: a pure function of the validations so far."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Self

from foundry_core.training.validation.config import BestRule


@dataclass(kw_only=True)
class Judge:
    """value, step: of the best validation; waited: those since without a gain."""

    rule: BestRule | None
    value: float | None = None
    step: int = 0
    waited: int = 0

    def judge(self, value: float, step: int) -> bool:
        """Takes in the measure after `step` steps; whether it is the best one. NaN never is."""
        if self.rule is None:
            return False
        if self._gain(value, self.rule):
            self.value, self.step, self.waited = value, step, 0
            return True
        self.waited += 1
        return False

    @property
    def stop(self) -> bool:
        """Whether training ends here."""
        patience = self.rule.patience if self.rule else None
        return patience is not None and self.waited >= patience

    def _gain(self, value: float, rule: BestRule) -> bool:
        if math.isnan(value):
            return False
        if self.value is None:
            return True
        gain = self.value - value if rule.better == "lower" else value - self.value
        return gain > rule.least_gain

    def state(self) -> dict[str, Any]:
        """What resumes it, as JSON."""
        return {name: value for name, value in asdict(self).items() if name != "rule"}

    @classmethod
    def restored(cls, rule: BestRule | None, state: dict[str, Any] | None) -> Self:
        return cls(rule=rule, **(state or {}))
