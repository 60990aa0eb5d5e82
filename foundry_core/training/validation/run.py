"""Validation in the course of a run: when it is due, what it leaves, what it keeps, how it resumes.

The model is as before afterwards, and nothing random was drawn: a run has the same bits with it and
without, unless a rule ends it or keeps other weights than the last.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from foundry_core.training.distributed import World
from foundry_core.training.metrics import MetricsLog
from foundry_core.training.state import BestWeights, Ema
from foundry_core.training.validation.measures import FINAL
from foundry_core.training.validation.record import write_held_out
from foundry_core.training.validation.rules import Judge
from foundry_core.training.validation.validator import Look, Validator, judged

PREFIX = "validation/"
"""Before the names of measures, wherever they stand beside others."""
FILE = "validation.jsonl"
_ROWS = 32


class Validation:
    """Of one run. validator None: there is none, and nothing is ever due.

    best: the weights of the best validation, where the rule keeps them; part of the run's state.
    """

    def __init__(
        self, validator: Validator | None, module: nn.Module, ema: Ema | None, world: World
    ) -> None:
        self.validator, self._ema, self._world = validator, ema, world
        self._rule = validator.config.best if validator else None
        self.best = BestWeights(module) if self._rule and self._rule.keep else None
        self.judge = Judge(rule=self._rule)
        self._log: MetricsLog | None = None

    def open(self, scratch: Path) -> None:
        """Where its rows go while the run goes on."""
        if self.validator is not None:
            self._log = MetricsLog(scratch / f"validation{self._world.rank or ''}.jsonl")

    def due(self, done: int) -> bool:
        """After `done` steps; the same on every rank and after any resume."""
        return self.validator is not None and self.validator.due(done)

    def first_due(self, done: int) -> bool:
        """Before the first of the run's steps: of the weights that it begins with. A resumed run
        has their row; one that was killed before its first checkpoint makes it again."""
        return self.validator is not None and done == 0

    def last_due(self, done: int) -> bool:
        """After the last of the run's steps: if none was made of these weights."""
        return self.validator is not None and done > 0 and not self.validator.due(done)

    def measure(
        self, done: int, module: nn.Module, look: Look, rows: int | None
    ) -> dict[str, float]:
        """Of the weights as they are and of their average, by the names that sinks know; takes in
        whether they were the best. module: what `look` calls. rows: most samples at once."""
        assert self.validator is not None and self._log is not None
        found: dict[str, float] = {}
        rows = min(_ROWS, rows or _ROWS)
        module.eval()
        with torch.no_grad():
            for name in ("raw", "ema") if self._ema else ("raw",):
                average = self._ema.in_place() if self._ema and name == "ema" else nullcontext()
                with average:
                    one = self.validator.measures(look, rows, self._world)
                    if name == "ema" or not self._ema:
                        self._judge(done, one)
                found |= {f"{name}/{measure}": value for measure, value in one.items()}
        module.train()
        self._log.add(found)
        self._log.write_row(done)
        return {f"{PREFIX}{name}": value for name, value in found.items()}

    def _judge(self, done: int, measures: Mapping[str, float]) -> None:
        """Of the weights that the stage would leave, which stand in the model. Those that no step
        has changed are no candidate: the rule chooses among trained ones."""
        if self._rule is None:
            return
        value = judged(self._rule, measures)  # a wrong name is an error before the first step
        if done and self.judge.judge(value, done) and self.best:
            self.best.take()

    def state(self, *, rows: bool) -> dict[str, Any]:
        """What resumes it, as JSON; rows: on another host, too."""
        if self._log is None:
            return {}
        return {"validation": {"log": self._log.state(rows=rows), "judge": self.judge.state()}}

    def restore(self, scalars: Mapping[str, Any]) -> None:
        """Continues from what `state` gave, or from nothing."""
        saved = scalars.get("validation", {})
        self.judge = Judge.restored(self._rule, saved.get("judge"))
        if self._log is not None:
            self._log.restore(saved.get("log") if self._world.main else None)

    def finish(self, records: Path) -> dict[str, float]:
        """Puts the best weights into the model, where they are kept; returns the last row's
        measures but those of single steps, those of what needs no training, and the best one's.
        The main rank writes what they are of into `records`."""
        if self.best:
            self.best.copy_to_module()
        if self._log is None:
            return {}
        self._log.close()
        last = self._log.last.items()
        found = {n: v for n, v in last if not n.rpartition("/")[2].isdigit()}
        if found and self._world.main:
            assert self.validator is not None
            found |= self.validator.untrained()
            write_held_out(records, self.validator, found)
        told = {f"{FINAL}{name}": value for name, value in found.items()}
        if self.judge.value is not None:
            told |= {"best_step": self.judge.step, "best_value": self.judge.value}
        return told
