"""What an exam of a language model is: a file of questions in a published form, and the choices
that the model weighs.

An open set (foundry_core/config/registry.py): one file per format in formats/, whose config reads
one record of the data set's own raw fields and ends in `FORMAT = <the class>`. Planning imports
these files.
"""

import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from foundry_core.config.registry import OneOf, Registry
from foundry_core.data.sources.base import PathSource
from foundry_core.data.sources.files import find_files
from foundry_core.data.sources.lines import line_refs, lines
from foundry_core.errors import FoundryError

_ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".ndjson")


@dataclass(frozen=True, kw_only=True)
class Question:
    """asked: (context, continuation) of each choice, of which the model weighs the continuation.
    choices: the choices as texts, whose lengths normalise. gold: the number of the right one."""

    asked: tuple[tuple[str, str], ...]
    choices: tuple[str, ...]
    gold: int

    def __post_init__(self) -> None:
        if not 0 <= self.gold < len(self.asked):
            raise ValueError(f"choice {self.gold} is right, of {len(self.asked)}")


def after(context: str, choices: "tuple[str, ...] | list[str]", gold: int) -> Question:
    """Every choice after one context, a space between them."""
    asked = tuple((context, f" {choice}") for choice in choices)
    return Question(asked=asked, choices=tuple(choices), gold=gold)


class QuestionFormat(PathSource):
    """A .jsonl file of questions, or a folder of such files. normalised: whether acc_norm is a
    measure of it: where choices differ in length."""

    normalised: ClassVar[bool] = True

    @abstractmethod
    def question(self, record: Mapping[str, Any]) -> Question:
        """One record. KeyError, TypeError or ValueError where it is of another form."""

    def read(self, limit: int | None = None) -> Iterator[tuple[str, Question]]:
        """(where, question), at most `limit`, in the order of the files. FoundryError for a record
        of another form: a score over what happens to be readable is none."""
        count = 0
        for file in find_files(self.path, _ENDINGS):
            for where, line in (one for ref in line_refs(file) for one in lines(ref)):
                if not line.strip():
                    continue
                if limit is not None and count >= limit:
                    return
                count += 1
                yield where, self._read(where, line)
        if not count:
            raise FoundryError(f"{self.path!r} holds no question", "point it at the .jsonl file")

    def _read(self, where: str, line: bytes) -> Question:
        try:
            record = json.loads(line)
            if not isinstance(record, dict):
                raise ValueError("no JSON object")
            return self.question(record)
        except KeyError as error:
            problem = f"it has no {error.args[0]!r}"
        except (TypeError, ValueError, AttributeError, RecursionError) as error:
            problem = str(error)
        raise FoundryError(
            f"{where} is no question in the form of {self.format}: {problem}",
            "docs/quality.md lists the fields of every format",
        )


QUESTIONS: Registry[type[QuestionFormat]] = Registry(
    group="foundry.question_formats",
    package="foundry_core.evaluation.language.formats",
    attribute="FORMAT",
    noun="question format",
)
QuestionSource = Annotated[QuestionFormat, OneOf(QUESTIONS, "format")]
