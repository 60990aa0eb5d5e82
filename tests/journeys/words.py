"""Texts and captions on their way: read, converted, one training step."""

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from foundry_core.config.validation import validate
from foundry_core.data.loading.text import read_row
from foundry_core.data.shards.read import ShardSet
from foundry_core.data.sources.base import (
    CAPTION_FORMATS,
    TEXT_FORMATS,
    Broken,
    Captioned,
    Document,
)
from foundry_core.data.text.tokenizer import Tokenizer
from tasks.convert_captions import ConvertCaptions
from tasks.convert_text import ConvertText
from tasks.train_llm import TrainLlm
from tasks.train_vlm import TrainVlm
from tests.journeys.originals import Found, pixels
from tests.real_data import FORMATS
from tests.tasks.training_stages import LANGUAGE, VLM, curve, run_stage

# Set → format, place in its folder.
TEXTS = {
    "hf_save_to_disk": ("arrow", "ds/train"),
    "text_dclm_jsongz": ("jsonl", ""),
    "text_jsonl_zst": ("jsonl", ""),
    "text_parquet": ("parquet", ""),
}
# Of the webdataset tar, the samples that have captions.
CAPTIONS = {
    "caption_parquet": ("image_parquet", ""),
    "img2dataset_tar": ("img2dataset", "out"),
    "webdataset_cls": ("img2dataset", ""),
}
CONTEXT = 31
TRAINING = {"steps": 1, "schedule": {"warmup": 1}}


@dataclass
class TextTravel:
    """A set of texts. out: where the stages work."""

    name: str
    out: Path

    def read(self) -> str:
        format_, place = TEXTS[self.name]
        kind = TEXT_FORMATS.get(format_)
        document = kind.options(str(FORMATS / self.name / place))
        self.source = validate(kind, document, "source")
        given = [one for ref in self.source.refs() for one in self.source.read(ref)]
        texts = [one.text for one in given if isinstance(one, Document)]
        self.unreadable = len(given) - len(texts)
        expected = json.loads((FORMATS / self.name / "expected.json").read_text())
        wanted = expected.get("text") or expected["splits"]["train"]["text"]
        joined = hashlib.sha256("\0".join(texts).encode()).hexdigest()
        assert (len(texts), joined) == (wanted["count"], wanted["sha256_all_joined_nul"])
        self.texts = texts
        return f"{len(texts)} texts equal"

    def convert(self) -> str:
        """The tokens, decoded, are the texts in their order; only the unfilled row is left."""
        tokenizer = Tokenizer.train(["some text"], 258)
        tokenizer.save(self.out / "tokenizer")
        recipe = {"source": self.source, "context": CONTEXT, "max_skipped": self.unreadable}
        checked = ConvertText.Recipe.model_validate(recipe).model_dump()
        places = {"tokenizer": {"tokenizer": self.out / "tokenizer"}}
        run_stage(ConvertText, self.out / "shards", self.out / "scratch", checked, places)
        stored = ShardSet(self.out / "shards")
        rows = [read_row(stored.members(number)) for number in range(len(stored))]
        kept = np.concatenate(rows).tolist()
        whole = [
            token for text in self.texts for token in (*tokenizer.encode(text), tokenizer.eos_id)
        ]
        assert kept == whole[: len(kept)]
        assert len(whole) - len(kept) <= CONTEXT
        return f"{len(kept):,} tokens equal"

    def train(self) -> str:
        recipe = {
            "model": LANGUAGE,
            "data": {"text": {"batch_size": 4}},
            "training": TRAINING,
        }
        places = {
            "text": {"text": self.out / "shards"},
            "tokenizer": {"tokenizer": self.out / "tokenizer"},
        }
        run_stage(TrainLlm, self.out / "llm", self.out / "train", recipe, places)
        return one_step(self.out / "llm")


@dataclass
class CaptionTravel:
    """A set of captioned images."""

    name: str
    out: Path

    def read(self) -> str:
        format_, place = CAPTIONS[self.name]
        kind = CAPTION_FORMATS.get(format_)
        document = kind.options(str(FORMATS / self.name / place))
        self.source = validate(kind, document, "source")
        given = [one for ref in self.source.refs() for one in self.source.items(ref)]
        self.items = [one for one in given if isinstance(one, Captioned)]
        self.broken = sum(isinstance(one, Broken) for one in given)
        wanted = captions_of(FORMATS / self.name)
        assert len(self.items) == len(wanted)
        digests = dict(wanted)
        for item in self.items:
            (data,) = item.images.values()
            assert hashlib.sha256(data).hexdigest() == digests[item.caption], item.id
        return f"{len(self.items)} captions and files equal"

    def convert(self) -> str:
        recipe = {"source": self.source, "max_skipped": self.broken}
        checked = ConvertCaptions.Recipe.model_validate(recipe).model_dump()
        run_stage(ConvertCaptions, self.out / "shards", self.out / "scratch", checked, {})
        stored = ShardSet(self.out / "shards")
        assert len(stored) == len(self.items)
        captions = {item.caption: item for item in self.items}
        found = Found()
        for number in range(len(stored)):
            members = stored.members(number)
            item = captions[bytes(members["txt"]).decode()]
            (raw,) = item.images.values()
            (name,) = members.keys() - {"txt", "json"}
            kept = pixels(bytes(members[name]))
            off = np.abs(pixels(raw).astype(float) - kept).mean()
            found.near(item.id, float(off), 2.0)
        return f"{len(stored)} captions, {found.text()}"

    def train(self) -> str:
        Tokenizer.train(["some text"], 258).save(self.out / "tokenizer")
        recipe = {
            "model": {**VLM, "language": {"kind": "transformer", **LANGUAGE}},
            "data": {"captions": {"batch_size": 4, "image": {"size": [16, 16]}}},
            "training": TRAINING,
        }
        places = {
            "captions": {"captions": self.out / "shards"},
            "tokenizer": {"tokenizer": self.out / "tokenizer"},
        }
        run_stage(TrainVlm, self.out / "vlm", self.out / "train", recipe, places)
        return one_step(self.out / "vlm")


def one_step(folder: Path) -> str:
    """What the only step of a training left behind."""
    (row,) = curve(folder)
    assert math.isfinite(row["loss"]) and math.isfinite(row["grad_norm"])
    assert row["grad_norm"] > 0
    return f"loss {row['loss']:.2f}, gradient {row['grad_norm']:.2g}"


def captions_of(folder: Path) -> list[tuple[str, str]]:
    """(caption, sha256 of the image's file)."""
    document = json.loads((folder / "expected.json").read_text())
    if "rows" in document:
        return [(row["caption"], row["sha256_bytes"]) for row in document["rows"]]
    if "stats" in document:  # img2dataset
        rows = document["shards"]["00000.parquet"]
        files = document["shards"]["00000.tar"]["images"]
        return [
            (row["caption"], files[f"{row['key']}.jpg"]["sha256_bytes"])
            for row in rows
            if row["status"] == "success"
        ]
    samples = [one for shard in document["shards"].values() for one in shard["samples"]]
    return [(one["txt"], one["png"]["sha256_bytes"]) for one in samples if "txt" in one]
