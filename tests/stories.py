"""A pipeline from a file of texts to a small language model."""

import json
from pathlib import Path

import yaml


def write_stories(folder: Path) -> Path:
    """Its file; the stages are tokenizer, stories, llm."""
    texts = folder / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": f"story {i} " * 20}) + "\n" for i in range(40)))
    source = {"format": "jsonl", "path": str(texts)}
    inputs = {"tokenizer": "tokenizer"}
    stages = {
        "tokenizer": {
            "kind": "train_tokenizer",
            "recipe": {"vocab_size": 262, "sources": [source]},
        },
        "stories": {
            "kind": "convert_text",
            "inputs": inputs,
            "recipe": {"context": 16, "source": source},
        },
        "llm": {
            "kind": "train_llm",
            "inputs": inputs | {"text": "stories"},
            "recipe": {
                "model": {"dim": 16, "n_layers": 2, "n_heads": 2, "ffn_dim": 16, "context": 16},
                "data": {"text": {"batch_size": 6}},
                "training": {"steps": 5},
            },
        },
    }
    path = folder / "stories.yaml"
    path.write_text(yaml.safe_dump({"name": "stories", "stages": stages}))
    return path
