"""The stage evaluate_vlm: known values, and generation as transformers does it."""

import json
import math

import numpy as np
import pytest
import torch
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer
from transformers.models.idefics3 import Idefics3Processor

from foundry_core.config.validation import validate
from foundry_core.data.images import encode_jpeg
from foundry_core.errors import FoundryError
from foundry_core.evaluation.quality import read_quality
from foundry_core.evaluation.vision.captions import Sample, caption_measures, describe, samples
from foundry_core.evaluation.vision.config import CaptionExam, VqaQuestions
from foundry_core.evaluation.vision.writing import ReadText, Writer
from foundry_core.models.text_model import load_text_model
from foundry_core.pipeline.registry import stage_kind
from foundry_core.pipeline.stage import Upstream
from tests.hf_checkpoints import make_vlm
from tests.synthetic import make_captions
from tests.tasks.test_evaluate_llm import VLM, saved
from tests.tasks.training_stages import run_stage

KIND = stage_kind("evaluate_vlm")


def examined(tmp_path, model, inputs=None, **recipe):
    checked = validate(KIND.Recipe, recipe, "exam")
    run_stage(
        KIND,
        tmp_path / "out",
        tmp_path / "scratch",
        checked,
        {"model": {"m": model}, "captions": inputs or {}},
    )
    rows = [json.loads(line) for line in (tmp_path / "out" / "answers.jsonl").open()]
    found = read_quality(tmp_path / "out").measures
    return {f"{one.task}/{one.name}": one for one in found}, rows


class Says:
    """A model that writes what it is told to. Each caption is believed with half a nat a token."""

    def __init__(self, *texts):
        self.texts = texts

    def prompt(self, text, images):
        return text

    def write(self, prompts, max_tokens):
        return list(self.texts)

    def read(self, prompts, texts):
        return [ReadText(nats=2.0, tokens=4, bytes=len(text)) for text in texts]


THERE = "Pull. top: hand 1010, lever 2020, goal outside. left 03, forward 12, down 04."


def scene(size=96):
    return Sample(id="s", images={"top": np.zeros((size, size, 3), np.uint8)}, caption=THERE)


def test_grounding_in_pixels_and_centimetres():
    said = "Pull. top: hand 1310, goal 0303. left 03, forward 08, down 01."
    exam = CaptionExam()
    found = list(describe(Says(said, THERE), [scene(), scene()], exam, lambda done: None))
    first, second = found
    # Three cells of two pixels each; the lever is not placed, the goal has no place.
    assert first.pixel_errors == {"top/hand": 6.0}
    assert first.unplaced == ("top/object",)
    assert first.offset_error_cm == 5.0
    assert (second.exact, second.token_f1, second.offset_error_cm) == (True, 1.0, 0.0)
    measures = {f"{m.task}/{m.name}": m.value for m in caption_measures("c", found)}
    assert measures["c/pixel_error_px"] == 2.0
    assert measures["c/hand/pixel_error_px"] == 3.0
    assert measures["c/object/pixel_error_px"] == 0.0
    assert "c/goal/pixel_error_px" not in measures
    assert measures["c/placed"] == 0.75
    assert measures["c/offset_error_cm"] == 2.5
    assert measures["c/exact"] == 0.5
    assert measures["c/loss"] == 0.5
    assert measures["c/bits_per_byte"] == pytest.approx(4 / (2 * len(THERE)) / math.log(2))


def test_captions_without_places_have_no_grounding():
    plain = Sample(id="p", images={}, caption="a red cup")
    found = list(describe(Says("a cup"), [plain], CaptionExam(), lambda done: None))
    names = {m.name for m in caption_measures("c", found)}
    assert names == {"exact", "token_f1", "loss", "bits_per_byte"}
    assert found[0].token_f1 == pytest.approx(2 / 3)


def test_samples_are_evenly_spaced_over_the_held_out_side(tmp_path):
    make_captions(tmp_path / "data", samples=8)
    held_out = make_captions(tmp_path / "data" / "validation", samples=20, seed=1)
    found = list(samples(tmp_path / "data", CaptionExam(limit=4)))
    assert [one.id for one in found] == ["c1-0", "c1-5", "c1-10", "c1-15"]
    assert [*found[0].images] == ["front", "wrist"]
    turned = CaptionExam(limit=1, images=("wrist",), split="all")
    (one,) = samples(held_out, turned)
    assert [*one.images] == ["wrist"]
    with pytest.raises(FoundryError, match="nothing is held out"):
        next(samples(held_out, CaptionExam()))
    with pytest.raises(FoundryError, match="lacks top"):
        next(samples(tmp_path / "data", CaptionExam(images=("top",))))


def test_an_even_model_s_captions_are_known(tmp_path):
    """Each token, the end too, has 1 / 264; two images of a token each stand before them."""
    data = make_captions(tmp_path / "data", samples=5)
    measures, rows = examined(
        tmp_path,
        saved(tmp_path / "model", VLM),
        {"c": data},
        captions={"split": "all", "max_tokens": 2, "limit": None},
    )
    assert measures["c/loss"].value == pytest.approx(math.log(264), abs=1e-5)
    # Letters and an end; the context has 16 tokens, of which the images are the first two.
    assert [(row["tokens"], row["bytes"]) for row in rows] == [
        (13, 12), (15, 14), (15, 15), (15, 15), (15, 15),
    ]  # fmt: skip
    assert measures["c/exact"].value == 0 and measures["c/exact"].n == 5


def test_captions_trained_on_are_refused_by_the_plan():
    def upstream(split):
        recipe = validate(stage_kind("convert_captions").Recipe, {"split": split}, "captions")
        return {
            "captions": {"c": Upstream(name="captions", kind="convert_captions", recipe=recipe)}
        }

    KIND.check(KIND.Recipe(), upstream({"fraction": 0.1}))
    KIND.check(validate(KIND.Recipe, {"captions": {"split": "all"}}, "x"), upstream(None))
    with pytest.raises(FoundryError, match="nothing is held out"):
        KIND.check(KIND.Recipe(), upstream(None))
    with pytest.raises(FoundryError, match="asked nothing"):
        KIND.check(KIND.Recipe(), {})


def write_questions(folder, records, size=32):
    folder.mkdir()
    lines = []
    for number, (question, answers) in enumerate(records):
        pixels = np.random.default_rng(number).integers(0, 256, (size, size, 3)).astype(np.uint8)
        (folder / f"{number}.jpg").write_bytes(encode_jpeg(pixels, 95))
        lines.append({"image": f"{number}.jpg", "question": question, "answers": answers})
    (folder / "questions.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))


def test_a_question_of_another_form_is_named(tmp_path):
    folder = tmp_path / "q"
    write_questions(folder, [("why", ["so"])])
    source = validate(VqaQuestions, {"path": str(folder)}, "q")
    (one,) = source.read()
    assert (one.question, one.answers, [*one.images]) == ("why", ("so",), ["0.jpg"])
    for line, problem in [
        ('{"image": "0.jpg", "answer": "x"}', "it has no 'question'"),
        ('{"image": "9.jpg", "question": "q", "answer": "x"}', "9.jpg"),
        ('{"image": "../0.jpg", "question": "q", "answer": "x"}', "not a visible file inside"),
        ('{"image": "0.jpg", "question": "q", "answers": [{"answer": 3}]}', "3 is no text"),
        ('{"image": "0.jpg", "question": "q", "answers": []}', "it has no answer"),
        ("[]", "list"),
    ]:
        (folder / "questions.jsonl").write_text(f"{line}\n")
        with pytest.raises(FoundryError, match="line 1 is no question") as caught:
            list(source.read())
        assert problem in caught.value.message
    with pytest.raises(FoundryError, match=r"has no \{question\}"):
        validate(VqaQuestions, {"path": "x", "prompt": "say"}, "q")


def plain_transformers(checkpoint, folder, most):
    """What transformers alone writes: its processor, its `generate`. No line of ours."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    processor = Idefics3Processor(
        AutoImageProcessor.from_pretrained(checkpoint), tokenizer, image_seq_len=4
    )
    model = AutoModelForImageTextToText.from_pretrained(checkpoint).eval()
    never = [*range(len(tokenizer), model.config.text_config.vocab_size)]
    never.append(tokenizer.convert_tokens_to_ids("<image>"))
    said = []
    from PIL import Image

    for line in (folder / "questions.jsonl").read_text().splitlines():
        row = json.loads(line)
        turn = [{"type": "image"}, {"type": "text", "text": row["question"]}]
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": turn}], tokenize=False, add_generation_prompt=True
        )
        inputs = processor(
            text=[text],
            images=[[Image.open(folder / row["image"])]],
            return_tensors="pt",
            add_special_tokens=False,
        )
        with torch.no_grad():
            out = model.generate(
                **inputs,
                do_sample=False,
                max_new_tokens=most,
                suppress_tokens=never,
                eos_token_id=tokenizer.eos_token_id,
            )
        new = out[0, inputs["input_ids"].shape[1] :]
        said.append(tokenizer.decode(new, skip_special_tokens=True).strip())
    return said


def vqa_rule(answer, people):
    """The challenge's own words: the mean over all sets of nine of ten people's answers."""
    chosen = []
    for left_out in range(len(people)):
        others = people[:left_out] + people[left_out + 1 :]
        chosen.append(min(1.0, sum(one == answer for one in others) / 3))
    return sum(chosen) / len(chosen)


def test_transformers_alone_answers_the_same(tmp_path):
    checkpoint, folder = make_vlm(tmp_path / "checkpoint", "idefics3"), tmp_path / "q"
    asked = [f"what is {'very ' * n}red?" for n in range(6)]
    write_questions(folder, [(one, ["?"]) for one in asked])
    said = plain_transformers(checkpoint, folder, 8)
    assert len({*said}) > 1 and all(said)
    # As many people as the question's number say what the model says.
    lines = [json.loads(line) for line in (folder / "questions.jsonl").open()]
    people = [[text] * n + ["quite another answer"] * (10 - n) for n, text in enumerate(said)]
    for line, answers in zip(lines, people, strict=True):
        line["answers"] = [{"answer": one} for one in answers]
    (folder / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run_stage(
        stage_kind("import_vlm"), tmp_path / "model", tmp_path / "s", {"path": str(checkpoint)}, {}
    )
    measures, rows = examined(
        tmp_path, tmp_path / "model", questions={"vqa": {"path": str(folder), "max_tokens": 8}}
    )
    assert [row["said"] for row in rows] == said
    wanted = [vqa_rule(text, answers) for text, answers in zip(said, people, strict=True)]
    assert [row["vqa_accuracy"] for row in rows] == pytest.approx(wanted)
    assert measures["vqa/vqa_accuracy"].value == pytest.approx(sum(wanted) / 6)
    assert measures["vqa/exact"].value == pytest.approx(5 / 6)


def test_a_batch_says_what_each_row_says_alone(tmp_path):
    loaded = load_text_model(saved(tmp_path / "model", VLM, even=False))
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (16, 16, 3)).astype(np.uint8) for _ in range(5)]
    counts, texts = (1, 1, 2, 0, 1), ("a", "bcd", "", "ef", "ghijk")
    together = Writer(text_model=loaded, batch=4)
    prompts = [together.prompt(text, pictures[:n]) for n, text in zip(counts, texts, strict=True)]
    alone = [Writer(text_model=loaded, batch=1).write([one], 6)[0] for one in prompts]
    assert together.write(prompts, 6) == alone
