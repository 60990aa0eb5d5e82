"""One validation: every held-out sample through the model as it is, its measures as one row."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from foundry_core.config.suggest import nearest
from foundry_core.data.loading.config import ROBOT
from foundry_core.errors import FoundryError
from foundry_core.training.distributed import World
from foundry_core.training.mixed_batch import Batch, Probe, StepKey
from foundry_core.training.validation.baselines import ActionBaselines
from foundry_core.training.validation.config import BestRule, ValidationConfig
from foundry_core.training.validation.held_out import HeldOut
from foundry_core.training.validation.probes import means

Look = Callable[[str, Batch, Probe, StepKey], dict[str, Tensor]]
"""Puts a batch of a modality, as the loader made it, through the model and a probe."""


@dataclass(frozen=True, kw_only=True)
class Validator:
    """held_out: what is read; probes: by modality, those of its loader at least. seed: of the
    noise, which is the same each time: it depends on the sample beside it, and on nothing else.
    baselines: what actions that need no training are worth."""

    config: ValidationConfig
    held_out: HeldOut
    probes: Mapping[str, Probe]
    seed: int
    baselines: ActionBaselines | None = None

    def due(self, done: int) -> bool:
        """After `done` steps; the same on every rank and after any resume."""
        return done > 0 and done % self.config.every == 0

    def measures(self, look: Look, rows: int, world: World) -> dict[str, float]:
        """<modality>/<measure> over all its datasets, <modality>/<label>/<measure> of each.
        Collective. rows: most samples of a rank at once."""
        key = StepKey(seed=self.seed, step=0)
        sums: dict[str, tuple[float, float]] = {}
        for name, labels in self.held_out.counts.items():
            probe = self.probes[name]
            for label in labels:
                for batch in self.held_out.batches(name, label, rows, world):
                    found = look(name, batch, probe, key)
                    for measure, (total, count) in probe.sums(batch, found).items():
                        places = [f"{name}/{measure}"]
                        if "/" not in measure:  # of single steps, over all datasets only
                            places.append(f"{name}/{label}/{measure}")
                        for where in places:
                            before = sums.get(where, (0.0, 0.0))
                            sums[where] = (before[0] + total, before[1] + count)
        flat = world.sum([value for pair in sums.values() for value in pair])
        return means(dict(zip(sums, zip(flat[::2], flat[1::2], strict=True), strict=True)))

    def untrained(self) -> dict[str, float]:
        """<baseline>/<modality>/<measure> of the same samples, without a model. Not collective: one
        process reads all, no picture."""
        sums: dict[str, tuple[float, float]] = {}
        if self.baselines is None:
            return {}
        for label in self.held_out.counts.get(ROBOT, {}):
            for window in self.held_out.windows(label):
                one = {name: values[None] for name, values in window.items()}
                for name, (total, count) in self.baselines.sums(one).items():
                    whose, _, measure = name.partition("/")
                    where = f"{whose}/{ROBOT}/{measure}"
                    before = sums.get(where, (0.0, 0.0))
                    sums[where] = (before[0] + total, before[1] + count)
        return means(sums)


def judged(rule: BestRule, measures: Mapping[str, float]) -> float:
    """The rule's measure. FoundryError where there is none of that name."""
    if rule.measure not in measures:
        raise FoundryError(
            f"training.validation.best.measure {rule.measure!r} is not measured here",
            nearest(rule.measure, measures),
        )
    return measures[rule.measure]
