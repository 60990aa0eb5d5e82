"""PIQA (Bisk et al. 2020): which of two ways reaches a goal.

Fields of valid.jsonl: goal, sol1, sol2; the right one, 0 or 1, is a line of valid-labels.lst, or
the field `label` as the hub has it.
"""

from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field

from foundry_core.config.canonical import Location
from foundry_core.errors import FoundryError
from foundry_core.evaluation.language.base import Question, QuestionFormat, after
from foundry_core.identity.sources import fingerprint


class Piqa(QuestionFormat):
    """`Question: … Answer:`, then either solution. labels: the .lst file, where the questions have
    no `label`."""

    format: Literal["piqa"] = "piqa"
    labels: Location[str] | None = Field(
        None,
        description="the .lst file, where the questions have no `label`; identified by content",
    )

    def question(self, record: Mapping[str, Any]) -> Question:
        context = f"Question: {record['goal']}\nAnswer:"
        return after(context, [record["sol1"], record["sol2"]], int(record["label"]))

    def identity(self) -> Mapping[str, str]:
        more = {} if self.labels is None else {"labels": fingerprint(self.labels)}
        return {**super().identity(), **more}

    def read(self, limit: int | None = None) -> Iterator[tuple[str, Question]]:
        if self.labels is None:
            yield from super().read(limit)
            return
        unlabelled = _Unlabelled(path=self.path).read(limit)
        stated = Path(self.labels).expanduser().read_text(encoding="utf-8").split()[:limit]
        for found, label in zip_longest(unlabelled, stated):
            if found is None or label not in ("0", "1"):
                raise FoundryError(
                    f"{self.labels!r} has not one label, 0 or 1, for each question of "
                    f"{self.path!r}",
                    "the two files of one split belong together",
                )
            where, question = found
            yield where, Question(asked=question.asked, choices=question.choices, gold=int(label))

    def fetched(self, path: str) -> Self:
        if self.labels is not None:
            raise FoundryError(
                "piqa with a file of labels is read from this machine",
                "copy both files here, or write `label` into the questions",
            )
        return super().fetched(path)


class _Unlabelled(Piqa):
    """Questions whose labels come from beside them."""

    def question(self, record: Mapping[str, Any]) -> Question:
        return super().question({**record, "label": 0})


FORMAT = Piqa
