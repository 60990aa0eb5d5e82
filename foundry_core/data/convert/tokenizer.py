"""Training a tokenizer on any text sources."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from foundry_core.data.convert.report import write_json
from foundry_core.data.sources.config import TextSource
from foundry_core.data.sources.text import Document, read_text, text_refs
from foundry_core.data.text.tokenizer import Tokenizer


def train_tokenizer(
    sources: Sequence[TextSource],
    out: Path,
    *,
    vocab_size: int,
    sample: float,
    progress: Callable[..., None],
) -> dict[str, float]:
    """Streams the documents once. Unreadable ones are counted: merges do not miss a few."""
    counts = {"documents": 0, "unreadable": 0, "characters": 0}

    def texts() -> Iterator[str]:
        pieces = [(source, ref) for source in sources for ref in text_refs(source)]
        for done, (source, ref) in enumerate(pieces, start=1):
            for item in read_text(source, ref):
                if not isinstance(item, Document):
                    counts["unreadable"] += 1
                elif sample == 1.0 or _hash(item.text) < sample * 2**64:
                    counts["documents"] += 1
                    counts["characters"] += len(item.text)
                    yield item.text
            progress(done, len(pieces), f"{counts['documents']} documents")

    tokenizer = Tokenizer.train(texts(), vocab_size)
    tokenizer.save(out)
    write_json(out / "report.json", counts)
    return {**counts, "vocab_size": tokenizer.vocab_size}


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
