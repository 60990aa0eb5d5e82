"""Optuna's tree-structured Parzen estimator, by its ask-and-tell interface. Nothing is kept of it:
its seed and what it is told make the same study again."""

from collections import deque
from typing import Any

from flows.ablation.drivers.base import Driver
from flows.ablation.space import Change, Choices, Space, check
from foundry_core.errors import FoundryError


class OptunaDriver(Driver):
    def __init__(self, space: Space, number: int, seed: int) -> None:
        try:
            import optuna
        except ImportError as error:
            raise FoundryError(
                f"optuna is not installed here ({error})", "pip install 'foundry-robotics[optuna]'"
            ) from None
        check(space, 1)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space = space
        self._failed = optuna.trial.TrialState.FAIL
        # constant_liar: variants of one batch are not all asked for at the same place.
        sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        self._study: Any = optuna.create_study(direction="maximize", sampler=sampler)
        self._distributions = {path: _distribution(optuna, one) for path, one in space.items()}
        self._open: deque[Any] = deque()

    def ask(self) -> tuple[Change, ...]:
        trial = self._study.ask(self._distributions)
        self._open.append(trial)
        return tuple((path, self._value(path, trial.params[path])) for path in self._space)

    def tell(self, asked: tuple[Change, ...], rate: float | None) -> None:
        trial = self._open.popleft()
        if rate is None:
            self._study.tell(trial, state=self._failed)
        else:
            self._study.tell(trial, rate)

    def _value(self, path: str, suggested: Any) -> Any:
        one = self._space[path]
        return one.values[suggested] if isinstance(one, Choices) else one.readable(suggested)


def _distribution(optuna: Any, one: Any) -> Any:
    """Choices by their number: Optuna takes no lists and mappings."""
    kinds = optuna.distributions
    if isinstance(one, Choices):
        return kinds.CategoricalDistribution(range(len(one.values)))
    kind = kinds.IntDistribution if one.whole else kinds.FloatDistribution
    return kind(one.low, one.high, log=one.log)


DRIVER = OptunaDriver
