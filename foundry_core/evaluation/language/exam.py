"""A language model through an exam: questions with choices, held-out text."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from foundry_core.data.sources.base import Broken, TextFormat
from foundry_core.data.sources.remote import local_source
from foundry_core.errors import FoundryError
from foundry_core.evaluation.language.likelihoods import (
    Reader,
    accuracies,
    perplexities,
    read_documents,
    weigh,
)
from foundry_core.evaluation.quality import Measure, write_quality
from foundry_core.models.text_model import load_text_model
from foundry_core.pipeline.stage import StageContext


def examine_language(ctx: StageContext) -> Mapping[str, Any]:
    """Of an `evaluate_llm` stage; returns its metrics."""
    recipe = ctx.recipe
    (model,) = ctx.inputs["model"].values()
    loaded = load_text_model(model.path, device=ctx.resources.device, raw=True)
    reader = Reader.of(loaded, recipe.context, ctx.resources.batch)
    parts = len(recipe.questions) + len(recipe.text)
    measures: list[Measure] = []
    answers: list[dict[str, Any]] = []

    def each(name: str, number: int, whole: int) -> Any:
        return lambda done: ctx.progress(number + done / whole, parts, f"{name}: {done}/{whole}")

    for number, (name, source) in enumerate(recipe.questions.items()):
        asked = local_source(source, ctx.scratch, ctx.progress)
        questions = list(asked.read(recipe.limit))
        found = weigh(reader, questions, each(name, number, len(questions)))
        measures += accuracies(name, asked, found)
        answers += ({"task": name, **asdict(one)} for one in found)
    for number, (name, text) in enumerate(recipe.text.items(), len(recipe.questions)):
        documents = _documents(local_source(text, ctx.scratch, ctx.progress), name, recipe)
        read = read_documents(reader, documents, each(name, number, len(documents)))
        measures += perplexities(name, read)
        answers += ({"task": name, **asdict(one)} for one in read)
    facts = {"model": model.content, "context": reader.context}
    return write_quality(ctx.out, ctx.records, facts, measures, answers)


def _documents(source: TextFormat, name: str, recipe: Any) -> list[tuple[str, str]]:
    """(id, text) of the first `limit` that hold something. FoundryError for more unreadable ones
    than the recipe tolerates, and where nothing is left."""
    found: list[tuple[str, str]] = []
    broken: list[Broken] = []
    for one in (one for ref in source.refs() for one in source.read(ref)):
        if recipe.limit is not None and len(found) >= recipe.limit:
            break
        if isinstance(one, Broken):
            broken.append(one)
        elif one.text.strip():
            found.append((one.id, one.text))
    if len(broken) > recipe.max_skipped:
        raise FoundryError(
            f"text.{name}: {len(broken)} documents cannot be read; {broken[0].id}: "
            f"{broken[0].reason}",
            f"mend the source, or set max_skipped={len(broken)}",
        )
    if not found:
        raise FoundryError(f"text.{name} holds no document", "name another source")
    return found
