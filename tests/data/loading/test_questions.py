"""Questions beside captions: in the prompt, never a target."""

import json

import pytest

from foundry_core.data.images import encode_jpeg
from foundry_core.data.loading.build import build_loader
from foundry_core.data.loading.config import CaptionData, DataConfig, LoaderResources
from foundry_core.data.loading.shards import UnreadableSample
from tests.synthetic import picture, write_shards

SAMPLES = [{"question": "what? "}, {}, {"question": 3}]


def rows(folder, tokenizer, metadata, **changes):
    samples = (
        (f"q{i}", {"jpg": encode_jpeg(picture(i, 16), 95), "txt": b"door", "json": data})
        for i, data in enumerate(metadata)
    )
    write_shards(folder, samples, 8)
    (folder / "dataset.json").write_text(json.dumps({"format": "foundry-captions", "version": 1}))
    config = CaptionData(batch_size=3, prompt={"caption_prefix": "see "}, **changes)
    loader = build_loader(
        DataConfig(captions=config),
        {"captions": {"q": folder}},
        seed=0,
        tokenizer=tokenizer,
        tokens_per_image=2,
        resources=LoaderResources(),
    )
    batch = loader.rows("captions", "q", range(len(metadata)))
    for tokens, mask, targets in zip(
        batch["tokens"], batch["token_mask"], batch["target_mask"], strict=True
    ):
        said = tokens[targets][:-1].tolist()  # without the end of text
        yield tokenizer.decode(tokens[mask & ~targets][2:].tolist()), tokenizer.decode(said)


def test_a_question_stands_before_its_answer(tmp_path, tokenizer):
    data = [json.dumps(one).encode() for one in SAMPLES]
    asked = list(rows(tmp_path / "a", tokenizer, data, question="question"))
    assert asked == [("what? ", "door"), ("see ", "door"), ("see ", "door")]
    plain = list(rows(tmp_path / "b", tokenizer, data))
    assert plain == [("see ", "door")] * 3


def test_metadata_that_are_no_json_make_an_unreadable_sample(tmp_path, tokenizer):
    with pytest.raises(UnreadableSample, match="no JSON"):
        list(rows(tmp_path, tokenizer, [b"{"], question="question"))
