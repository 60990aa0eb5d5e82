"""Every format end to end: read, mapped, converted, one training step, exported and read back.

    python benchmarks/formats.py [--only NAME ...] [--out FILE]

A row per data set that an original tool wrote (FOUNDRY_TEST_DATA, else ../shared/data), and of our
simulator, which is recorded first. Each cell says what was compared there:

read: numbers to the bit with what the original reader gave, pictures to the bit or in grey levels
    where two libraries decode JPEG or video.
mapped: numbers through the ready mapping, or through the draft of `foundry data inspect`, with a
    computation of their own by SciPy, to 1e-12; pictures to the bit.
converted: what lies in the shards, numbers to the bit, pictures within 2 grey levels on average
    (JPEG of quality 95; a JPEG file that needs no turn stays as it is).
trained: one optimiser step of a tiny model by the stages themselves: finite loss and gradient.
exported: a LeRobot v3.0 dataset with PNG files, read back: numbers and pictures to the bit.

Exit code 1 where anything differs.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from foundry_core.parallel import ray_session
from tasks.collect_demos import CollectDemos
from tests.journeys.robot import JOURNEYS, Travel, simulator
from tests.journeys.words import CAPTIONS, TEXTS, CaptionTravel, TextTravel
from tests.real_data import ABSENT, FORMATS
from tests.tasks.training_stages import run_stage

STEPS = ("read", "map", "convert", "train", "export")
DEMOS = {
    "tasks": ["drawer-open-v3"],
    "episodes_per_task": 2,
    "render": {"size": 32, "supersample": 1},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME")
    parser.add_argument("--out", type=Path, help="a Markdown file for the table")
    options = parser.parse_args()
    lines = ["| data set | read | mapped | converted | trained | exported |", "|" + "---|" * 6]
    failed = False
    with ray_session(1), tempfile.TemporaryDirectory(prefix="foundry-formats-") as folder:
        for name, travel in travels(Path(folder), options.only):
            cells = list(stretches(travel))
            failed |= any(cell.startswith("FAILED") for cell in cells)
            lines.append(f"| {' | '.join([name, *cells, *['–'] * (5 - len(cells))])} |")
            print(lines[-1], flush=True)
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")
    return int(failed)


def travels(root: Path, only: list[str]) -> Iterator[tuple[str, Any]]:
    """(name, what travels)."""
    sets = sorted([*JOURNEYS, *TEXTS, *CAPTIONS]) if FORMATS.is_dir() else []
    if not sets:
        print(f"skipped: {ABSENT}", file=sys.stderr)
    for name in [*sets, "simulator"]:
        if only and name not in only:
            continue
        out = root / name
        out.mkdir()
        if name in TEXTS:
            yield name, TextTravel(name, out)
        elif name in CAPTIONS:
            yield name, CaptionTravel(name, out)
        elif name == "simulator":
            run_stage(CollectDemos, out / "demos", out / "scratch", DEMOS, {})
            yield name, Travel(simulator(out / "demos"), out)
        else:
            yield name, Travel(JOURNEYS[name], out)


def stretches(travel: Any) -> Iterator[str]:
    """What each stretch of a journey found; the first that fails is its last."""
    for step in STEPS:
        stretch = getattr(travel, step, None)
        if stretch is None:
            yield "–"
            continue
        try:
            yield stretch()
        except Exception as error:  # the table shows it, whatever it is
            yield f"FAILED: {type(error).__name__}: {error}"
            return


if __name__ == "__main__":
    sys.exit(main())
