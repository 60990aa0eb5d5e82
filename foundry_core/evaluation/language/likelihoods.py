"""What a model weighs choices and documents with: log-likelihoods of texts, as
lm-evaluation-harness defines them."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from foundry_core.evaluation.language.base import Question, QuestionFormat
from foundry_core.evaluation.quality import Measure, mapped, ratio, share
from foundry_core.models.generation import Continuation, Likelihood, score
from foundry_core.models.text_model import TextModel

_CONTEXT = 2048
"""Tokens that are read at most, where nobody says what the model's context is."""


@dataclass(frozen=True, kw_only=True)
class Reader:
    """A model that weighs texts. context: tokens that it reads at once. batch: rows at once."""

    text_model: TextModel
    context: int
    batch: int

    @classmethod
    def of(cls, text_model: TextModel, context: int | None, batch: int) -> "Reader":
        own = text_model.model.context or _CONTEXT
        return cls(text_model=text_model, context=min(context or own, own), batch=batch)

    def continuation(self, context: str, text: str) -> Continuation:
        """Encoded as one text and cut where the context's tokens end: the space between them
        belongs to the text."""
        tokenizer = self.text_model.tokenizer
        spaces = len(context) - len(context.rstrip())
        if spaces:
            context, text = context[:-spaces], context[-spaces:] + text
        before = tokenizer.encode(context)
        opening = tokenizer.opening
        head = [*opening, *before] or [tokenizer.eos_id]
        return Continuation(context=head, tokens=tokenizer.encode(context + text)[len(before) :])

    def windows(self, text: str) -> list[Continuation]:
        """A document cut into pieces that fill the model's context; every token is predicted once,
        the first one after the end-of-text token (or the model's own opening)."""
        tokenizer = self.text_model.tokenizer
        tokens = tokenizer.encode(text)
        head = tokenizer.opening or [tokenizer.eos_id]
        known = [*head[-1:], *tokens]
        pieces = []
        for start in range(0, len(tokens), self.context):
            end = min(start + self.context, len(tokens))
            # known[i + 1] is tokens[i]: what is read ends one before what is predicted.
            first = max(0, end - self.context)
            pieces.append(Continuation(context=known[first : start + 1], tokens=tokens[start:end]))
        return pieces

    def score(self, items: Sequence[Continuation]) -> list[Likelihood]:
        """In their order."""
        model = self.text_model.model
        return score(model, items, batch=self.batch, limit=self.context)


@dataclass(frozen=True, kw_only=True)
class Weighed:
    """An answered question. likelihoods: of each choice, in nats. chosen: by them; chosen_norm: by
    them per character of the choice; chosen_bytes: per byte."""

    where: str
    gold: int
    likelihoods: tuple[float, ...]
    chosen: int
    chosen_norm: int
    chosen_bytes: int


def weigh(
    reader: Reader, questions: Sequence[tuple[str, Question]], each: Callable[[int], None]
) -> list[Weighed]:
    """Each question's choices, in order. each: is told how many are done."""
    found: list[Weighed] = []
    for start in range(0, len(questions), _AT_ONCE):
        some = questions[start : start + _AT_ONCE]
        items = [reader.continuation(*asked) for _, one in some for asked in one.asked]
        totals = iter([likelihood.total for likelihood in reader.score(items)])
        for where, one in some:
            found.append(_weighed(where, one, [next(totals) for _ in one.asked]))
        each(len(found))
    return found


_AT_ONCE = 64
"""Questions between two words of progress."""


def _weighed(where: str, question: Question, likelihoods: list[float]) -> Weighed:
    def best(lengths: Iterable[int]) -> int:
        # An empty choice has no length: the harness divides by zero there, and prefers it.
        return int(np.argmax([a / max(b, 1) for a, b in zip(likelihoods, lengths, strict=True)]))

    return Weighed(
        where=where,
        gold=question.gold,
        likelihoods=tuple(likelihoods),
        chosen=int(np.argmax(likelihoods)),
        chosen_norm=best(len(choice) for choice in question.choices),
        chosen_bytes=best(len(choice.encode()) for choice in question.choices),
    )


def accuracies(task: str, asked: QuestionFormat, found: Sequence[Weighed]) -> Iterator[Measure]:
    """acc; and where choices differ in length acc_norm (per character) and acc_bytes."""
    yield share(task, "acc", (one.chosen == one.gold for one in found))
    if asked.normalised:
        yield share(task, "acc_norm", (one.chosen_norm == one.gold for one in found))
        yield share(task, "acc_bytes", (one.chosen_bytes == one.gold for one in found))


@dataclass(frozen=True, kw_only=True)
class ReadDocument:
    """id: as its source calls it. nats: of all its tokens."""

    id: str
    nats: float
    tokens: int
    bytes: int
    words: int


def read_documents(
    reader: Reader, documents: Sequence[tuple[str, str]], each: Callable[[int], None]
) -> list[ReadDocument]:
    """(id, text) of each, whole."""
    found = []
    for start in range(0, len(documents), _AT_ONCE):
        some = documents[start : start + _AT_ONCE]
        pieces = [reader.windows(text) for _, text in some]
        scored = iter(reader.score([piece for of_one in pieces for piece in of_one]))
        for (name, text), of_one in zip(some, pieces, strict=True):
            found.append(
                ReadDocument(
                    id=name,
                    nats=-math.fsum(next(scored).total for _ in of_one),
                    tokens=sum(len(piece.tokens) for piece in of_one),
                    bytes=len(text.encode()),
                    words=len(text.split()),
                )
            )
        each(len(found))
    return found


def perplexities(task: str, found: Sequence[ReadDocument]) -> Iterator[Measure]:
    """bits_per_byte, and perplexity per byte, word and token; documents are what is drawn."""
    nats = [one.nats for one in found]
    per_byte = ratio(task, "nats_per_byte", nats, [one.bytes for one in found])
    yield mapped(per_byte, "bits_per_byte", lambda nat: nat / math.log(2))
    yield mapped(per_byte, "byte_perplexity", math.exp)
    per_word = ratio(task, "nats_per_word", nats, [one.words for one in found])
    if max(per_word.value or 0.0, per_word.high or 0.0) < _LARGEST:
        yield mapped(per_word, "word_perplexity", math.exp)
    yield ratio(task, "loss", nats, [one.tokens for one in found])


_LARGEST = 700.0
"""Nats whose exponential is a float: an untrained model's words may be less likely still."""
