"""What it costs a conversion that the files it opens are watched.

    python benchmarks/audit.py [--pairs 20] [--documents 1500]

Text files, each opened once, are tokenised as `convert_text`'s workers do it, in processes forked
in pairs, one with and one without the audit hook, in turn the one and the other first: the worst
case, for nothing else opens as many files per second of work. Told is the median of the pairs'
ratios with its 95 % interval, which rests on no form of their distribution. CPU seconds (user and
system, of the process itself) tell on a machine that others use, too; wall seconds only on a quiet
one.
"""

import argparse
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
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
    started, spent = time.perf_counter(), cpu_seconds()
    for number, ref in enumerate(job.source.refs()):
        piece = folder / f"piece-{os.getpid()}-{number}"
        piece.mkdir()
        tokenise(replace(job, ref=ref), piece)
    answer.send((time.perf_counter() - started, cpu_seconds() - spent))


def cpu_seconds() -> float:
    """Of this process so far, user and system."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """(median, lower, upper): the narrowest pair of order statistics that holds the true median
    with at least 95 %, whatever the distribution; the extremes where there are fewer than six."""
    ordered, n = sorted(values), len(values)
    outside = 0
    below, tail = 0.0, 0.5**n
    while outside < (n - 1) // 2 and 2 * (below + tail) <= 0.05:
        below += tail
        outside += 1
        tail *= (n - outside + 1) / outside
    cut = max(outside - 1, 0)
    return statistics.median(ordered), ordered[cut], ordered[n - 1 - cut]


def measured(job: TokenJob, folder: Path, watched: bool) -> tuple[float, float]:
    receive, send = _FORK.Pipe(duplex=False)
    process = _FORK.Process(target=convert, args=(job, folder, watched, send))
    process.start()
    found = receive.recv()
    process.join()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--documents", type=int, default=1500)
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
        train_tokenizer([source], folder / "tokenizer", vocab_size=280, sample=1.0, progress=quiet)
        job = TokenJob(
            source=source,
            tokenizer=folder / "tokenizer",
            vocabulary=Vocabulary.of(source, folder / "tokenizer"),
            split=None,
            ref=source.refs()[0],
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
            middle, low, high = median_interval(ratios)
            print(
                f"{name}: {plain_seconds:.3f} s without; with the hook × {middle:.4f} "
                f"(95 %: {low:.4f}-{high:.4f}, {len(ratios)} pairs)"
            )


if __name__ == "__main__":
    main()
