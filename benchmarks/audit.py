"""What it costs a conversion that the files it opens are watched.

    python benchmarks/audit.py [--pairs 12] [--documents 3000]

Text files, each opened once, are tokenised as `convert_text`'s workers do it, in processes forked
in turn with and without the audit hook: the worst case, for nothing else opens as many files per
second of work.
"""

import argparse
import os
import statistics
import tempfile
import time
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from foundry_core.data.convert.text import TokenJob, Vocabulary, tokenise, train_tokenizer
from foundry_core.data.sources.text.txt import PlainText
from foundry_core.execution import reads

_FORK = get_context("fork")


def convert(job: TokenJob, folder: Path, watched: bool, answer: Connection) -> None:
    """Sends (seconds, CPU seconds)."""
    if watched:
        reads.watch(folder / f"reads-{os.getpid()}", [job.source.path], {})
    started, spent = time.perf_counter(), time.process_time()
    for ref in job.source.refs():
        tokenise(job, ref)
    answer.send((time.perf_counter() - started, time.process_time() - spent))


def measured(job: TokenJob, folder: Path, watched: bool) -> tuple[float, float]:
    receive, send = _FORK.Pipe(duplex=False)
    process = _FORK.Process(target=convert, args=(job, folder, watched, send))
    process.start()
    found = receive.recv()
    process.join()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--documents", type=int, default=3000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "texts").mkdir()
        words = ["a", "folder", "of", "short", "texts", "that", "somebody", "wrote", "down"]
        for at in range(options.documents):
            text = " ".join(words[(at + i * i) % len(words)] for i in range(200))
            (folder / "texts" / f"{at:05d}.txt").write_text(text)
        source = PlainText(path=str(folder / "texts"))
        quiet = partial(lambda *_, **__: None)
        train_tokenizer([source], folder / "tokenizer", vocab_size=300, sample=1.0, progress=quiet)
        job = TokenJob(
            source=source,
            tokenizer=folder / "tokenizer",
            vocabulary=Vocabulary.of(source, folder / "tokenizer"),
            eval_fraction=0.0,
        )
        measured(job, folder, True)
        pairs = [
            (measured(job, folder, at % 2 == 0), measured(job, folder, at % 2 == 1))
            for at in range(options.pairs)
        ]
        ordered = [pair if at % 2 == 0 else pair[::-1] for at, pair in enumerate(pairs)]
        for name, at in (("wall", 0), ("CPU", 1)):
            ratios = [watched[at] / plain[at] for watched, plain in ordered]
            plain_seconds = statistics.median(plain[at] for _, plain in ordered)
            low, high = min(ratios), max(ratios)
            print(
                f"{name}: {plain_seconds:.3f} s without; with the hook × "
                f"{statistics.median(ratios):.3f} ({low:.3f}-{high:.3f})"
            )


if __name__ == "__main__":
    main()
