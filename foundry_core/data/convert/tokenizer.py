"""Training a tokenizer on any text sources."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from foundry_core.data.sources.base import Broken, TextFormat
from foundry_core.data.text.tokenizer import Tokenizer
from foundry_core.files import hash64, write_json


def train_tokenizer(
    sources: Sequence[TextFormat],
    out: Path,
    *,
    vocab_size: int,
    sample: float,
    progress: Callable[..., None],
) -> dict[str, float]:
    """Streams the documents once. Unreadable ones are counted: merges do not miss a few."""
    counts = {"documents": 0, "unreadable": 0, "characters": 0}

    def texts() -> Iterator[str]:
        pieces = [(source, ref) for source in sources for ref in source.refs()]
        for done, (source, ref) in enumerate(pieces, start=1):
            for item in source.read(ref):
                if isinstance(item, Broken):
                    counts["unreadable"] += 1
                elif sample == 1.0 or hash64(item.text) < sample * 2**64:
                    counts["documents"] += 1
                    counts["characters"] += len(item.text)
                    yield item.text
            progress(done, len(pieces), f"{counts['documents']} documents")

    tokenizer = Tokenizer.train(texts(), vocab_size)
    tokenizer.save(out)
    write_json(out / "report.json", counts)
    return {**counts, "vocab_size": tokenizer.vocab_size}
