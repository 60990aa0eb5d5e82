"""A vision-language model through an exam: captions, questions about images."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from foundry_core.data.images import decode_image
from foundry_core.data.sources.remote import local_source
from foundry_core.data.text.answers import exact_match, vqa_score
from foundry_core.evaluation.quality import Measure, mean, share, write_quality
from foundry_core.evaluation.vision.captions import caption_measures, describe, samples
from foundry_core.evaluation.vision.config import AskedOfImages, VqaQuestions
from foundry_core.evaluation.vision.writing import Writer
from foundry_core.models.text_model import load_text_model
from foundry_core.pipeline.stage import StageContext

_AT_ONCE = 32


def examine_vision(ctx: StageContext) -> Mapping[str, Any]:
    """Of an `evaluate_vlm` stage; returns its metrics."""
    recipe = ctx.recipe
    (model,) = ctx.inputs["model"].values()
    loaded = load_text_model(model.path, device=ctx.resources.device, raw=not recipe.chat)
    writer = Writer(text_model=loaded, batch=ctx.resources.batch)
    datasets = ctx.inputs.get("captions", {})
    parts = len(datasets) + len(recipe.questions)
    measures: list[Measure] = []
    answers: list[dict[str, Any]] = []

    def each(name: str, number: int, whole: int) -> Any:
        return lambda done: ctx.progress(number + done / whole, parts, f"{name}: {done}/{whole}")

    for number, (label, dataset) in enumerate(datasets.items()):
        found = list(samples(dataset.path, recipe.captions))
        described = [*describe(writer, found, recipe.captions, each(label, number, len(found)))]
        measures += caption_measures(label, described)
        answers += ({"task": label, **asdict(one)} for one in described)
    for number, (name, source) in enumerate(recipe.questions.items(), len(datasets)):
        here = local_source(source, ctx.scratch, ctx.progress)
        asked = list(here.read())
        rows = [*_answered(writer, here, asked, each(name, number, len(asked)))]
        measures += [
            share(name, "exact", (row["exact"] for row in rows)),
            mean(name, "vqa_accuracy", [row["vqa_accuracy"] for row in rows], most=1.0),
        ]
        answers += ({"task": name, **row} for row in rows)
    return write_quality(ctx.out, ctx.records, {"model": model.content}, measures, answers)


def _answered(
    writer: Writer, source: VqaQuestions, asked: Sequence[AskedOfImages], each: Any
) -> Iterator[dict[str, Any]]:
    for start in range(0, len(asked), _AT_ONCE):
        some = asked[start : start + _AT_ONCE]
        prompts = [
            writer.prompt(
                source.asked(one.question),
                [decode_image(data, f"{name} of {one.id}") for name, data in one.images.items()],
            )
            for one in some
        ]
        for one, said in zip(some, writer.write(prompts, source.max_tokens), strict=True):
            yield {
                "id": one.id,
                "said": said.strip(),
                "answers": one.answers,
                "exact": exact_match(said, one.answers),
                "vqa_accuracy": vqa_score(said, one.answers),
            }
        each(start + len(some))
