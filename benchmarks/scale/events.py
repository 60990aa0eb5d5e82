"""Events of the lineage, as runs write them (benchmarks/lineage.py), 4.25 for each artifact."""

from pathlib import Path

from lineage import advances, closures, write_log
from measured import Clock, Part, Row, growing

from foundry_core.lineage.index import Index


def measure(folder: Path, events: int) -> Row:
    """An index that is built from its log, and then advances by 20 events five times."""
    artifacts = round(events / 4.25)
    clock = Clock()
    log = write_log(folder / "events", artifacts)
    written = clock.cpu
    index = Index(folder / "lineage.duckdb", log)
    clock = Clock()
    index.rebuild()
    rebuilt, wall = clock.cpu, clock.wall
    clock = Clock()
    gaining, _ = advances(index, 5)
    gained = clock.cpu / 5
    asked = closures(index.path, artifacts)
    stored = sum(file.stat().st_size for file in (folder / "events").rglob("*.parquet"))
    return {
        "events": events,
        "artifacts": artifacts,
        "log MB": stored / 1e6,
        "index MB": index.path.stat().st_size / 1e6,
        "CPU s to write the log": written,
        "CPU s to rebuild": rebuilt,
        "s to rebuild": wall,
        "CPU s to take in 20 events": gained,
        "s to take in 20 events": sorted(gaining)[2],
        **{f"s of {name}": sorted(s)[len(s) // 2] for name, s in asked.items()},
    }


PART = Part(sizes=growing(1_000_000, 4), measure=measure)
