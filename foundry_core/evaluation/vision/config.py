"""What a VLM is asked. Planning imports this: what decodes is imported where it is used."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, field_validator

from foundry_core.data.sources.base import PathSource
from foundry_core.errors import FoundryError
from foundry_core.identity.sources import source_file
from foundry_core.models.sizes import positive
from foundry_core.pipeline.stage import Config

_PLACE = "{question}"


class CaptionExam(Config):
    """Captions of the connected datasets, of samples evenly spaced over each. A scene's caption
    (collect_scenes) is also read for where it says that hand, object and goal are."""

    split: Literal["validation", "all"] = Field(
        "validation",
        description="all: for a dataset that was made for the exam; of one that was trained on it "
        "measures memory",
    )
    limit: int | None = positive(200, description="samples of each dataset; null: all")
    images: tuple[str, ...] | None = Field(
        None, min_length=1, description="names in their order, as in training; null: all, sorted"
    )
    prompt: str = Field("", description="after the images; as in training")
    max_tokens: int = positive(192, description="written at most")


@dataclass(frozen=True, kw_only=True)
class AskedOfImages:
    """id: as the file says, or the line. images: the files' bytes, by name. answers: of people."""

    id: str
    images: Mapping[str, bytes]
    question: str
    answers: tuple[str, ...]


class VqaQuestions(PathSource):
    """A folder with questions.jsonl: {"image": path | [paths], "question": text, "answers": [text |
    {"answer": text}]}, or "answer": text; "question_id" names a question."""

    format: Literal["vqa_jsonl"] = "vqa_jsonl"
    index: str = Field("questions.jsonl", description="name of the file of questions")
    prompt: str = Field(_PLACE, description="must contain {question}")
    limit: int | None = positive(None, description="the first so many; null: all")
    max_tokens: int = positive(32, description="written at most")

    @field_validator("prompt")
    @classmethod
    def _has_place(cls, prompt: str) -> str:
        if _PLACE not in prompt:
            raise ValueError(f"{prompt!r} has no {_PLACE}")
        return prompt

    def asked(self, question: str) -> str:
        """As the model reads it."""
        return self.prompt.replace(_PLACE, question)

    def read(self) -> Iterator[AskedOfImages]:
        """In the order of the file. FoundryError for a record of another form."""
        path = source_file(self.root, self.index)
        if not path.is_file():
            raise FoundryError(f"{self.path!r} holds no {self.index}", "check path and index")
        count = 0
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if not line.strip():
                continue
            if self.limit is not None and count >= self.limit:
                return
            count += 1
            yield self._record(number, line)
        if not count:
            raise FoundryError(f"{str(path)!r} holds no question")

    def _record(self, number: int, line: str) -> AskedOfImages:
        from foundry_core.data.sources.captions.items import read_image

        try:
            row = json.loads(line)
            files = [row["image"]] if isinstance(row["image"], str) else row["image"]
            answers = row["answers"] if "answers" in row else [row["answer"]]
            given = tuple(map(_text, answers))
            if not given:
                raise ValueError("it has no answer")
            return AskedOfImages(
                id=str(row.get("question_id", number)),
                images={name: read_image(source_file(self.root, name)) for name in files},
                question=_text(row["question"]),
                answers=given,
            )
        except KeyError as error:
            problem = f"it has no {error.args[0]!r}"
        except FoundryError as error:
            problem = error.message
        except (TypeError, ValueError, AttributeError, RecursionError) as error:
            problem = str(error)
        raise FoundryError(
            f"{self.index}, line {number} is no question about images: {problem}",
            "docs/quality.md shows a line",
        )


def _text(value: Any) -> str:
    found = value["answer"] if isinstance(value, Mapping) else value
    if not isinstance(found, str):
        raise ValueError(f"{found!r} is no text")
    return found
