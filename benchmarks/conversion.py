"""Conversion at size: memory, kills, workers, speed.

    python benchmarks/conversion.py --episodes 100000 --long 100000 --work /tmp/conversion

Makes many small synthetic episodes and one long one, converts them with 2 workers under three
kill -9, again without any and with other numbers of workers, compares the bytes, and records the
memory of the process that drives and of those that work. `--speed` compares the CPU time of a
picture with that of decoding, resizing and encoding the same pictures alone. Prints JSON.
"""

import argparse
import hashlib
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rows import Row, add_rows_argument, write_rows

from flows.reports.datasets import convert
from foundry_core.data.config import ImageConfig
from foundry_core.data.images import decode_image, encode_jpeg, transform
from foundry_core.data.npy import write_npz
from foundry_core.data.shards.tar import TarWriter

KILLS = (0.25, 0.5, 0.75)
_SAMPLE_SECONDS = 0.5
_SPEED_SIZE = (224, 224)


def write_episode(path: Path, number: int, steps: int, pictures: list[bytes]) -> None:
    """A demonstration of 6 numbers and one camera. pictures: taken in turn."""
    generator = np.random.default_rng(number)
    walk = generator.normal(size=(steps, 6)).cumsum(axis=0)
    meta = {
        "id": path.stem, "task": "walk", "hz": 10.0, "success": True,
        "instructions": {"original": ["walk"]},
    }  # fmt: skip
    with path.open("wb") as stream:
        tar = TarWriter(stream)
        tar.add("lowdim.npz", write_npz({"state": walk, "action": np.diff(walk, axis=0, append=0)}))
        tar.add("meta.json", json.dumps(meta).encode())
        for step in range(steps):
            tar.add(f"front/{step:06d}.jpg", pictures[(number + step) % len(pictures)])
        tar.finish()


def picture(seed: int, height: int, width: int) -> bytes:
    """Blurred noise: as hard to code as a photograph."""
    noise = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3))
    smooth = np.kron(noise, np.ones((8, 8, 1)))[:height, :width]
    grain = np.random.default_rng(seed + 1).normal(scale=6, size=(height, width, 3))
    return encode_jpeg(np.clip(smooth + grain, 0, 255).astype(np.uint8), 90)


def make_source(root: Path, episodes: int, steps: int, long: int) -> None:
    """`episodes` small ones, a thousand per folder, and one of `long` steps where that is > 0."""
    pictures = [picture(seed, 16, 16) for seed in range(50)]
    for number in range(episodes):
        folder = root / "episodes" / f"t{number // 1000:04d}"
        folder.mkdir(parents=True, exist_ok=True)
        write_episode(folder / f"e{number:07d}.tar", number, steps, pictures)
    if long:
        folder = root / "episodes" / "long"
        folder.mkdir(parents=True, exist_ok=True)
        write_episode(folder / "long.tar", episodes, long, pictures)
    (root / "demos.json").write_text("{}")


OVERRIDES = [
    ("cameras", ["front"]),
    ("fields", ["state", "action"]),
    ("relative", []),
    ("window", {"past": 1, "future": 6, "max_padding_right": 6, "max_padding_left": 1}),
    ("episodes_per_shard", 100),
]


def child(source: str, out: str, cpus: str) -> None:
    """The process that is measured and killed: a line per step of its progress."""
    convert(
        "demonstrations",
        source,
        out,
        OVERRIDES,
        cpus=int(cpus),
        progress=lambda done, total, *_, **__: print(done, total, flush=True),
    )


def families(root: int) -> Iterator[tuple[int, str]]:
    """(process, command) of a process and all below it."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry))
    waiting = [root]
    while waiting:
        process = waiting.pop()
        try:
            command = Path("/proc", str(process), "cmdline").read_bytes().replace(b"\0", b" ")
        except OSError:
            continue
        yield process, command.decode(errors="replace")
        waiting += children.get(process, [])


def memory(process: int) -> float:
    """Resident bytes that are its own, without what it maps of shared memory, in MB."""
    try:
        text = Path("/proc", str(process), "status").read_text()
    except OSError:
        return 0.0
    rows = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return int(rows.get("RssAnon", "0 kB").split()[0]) / 1024


class Watch:
    """One conversion in a process group of its own."""

    def __init__(self, source: Path, out: Path, cpus: int, home: Path) -> None:
        home.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {"FOUNDRY_HOME": str(home)}
        command = [sys.executable, __file__, "--child", str(source), str(out), str(cpus)]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
        )
        self.curve: list[tuple[float, float, float]] = []
        self._begun = self._looked = time.monotonic()

    def run(self, until: float = 1.0) -> dict[str, Any]:
        """To its end, or to kill -9 at that share of its steps."""
        done, total, killed = 0, 1, False
        assert self._process.stdout is not None
        for line in self._process.stdout:
            done, total = map(int, line.split())
            self._look(done / total)
            if until < 1 and done / total >= until:
                os.killpg(self._process.pid, signal.SIGKILL)
                killed = True
                break
        code = self._process.wait()
        if not killed and code:
            raise RuntimeError(f"the conversion ended with {code}")
        return {
            "seconds": round(time.monotonic() - self._begun, 1),
            "steps": f"{done}/{total}",
            "driver_mb": _quarters([row[1] for row in self.curve]),
            "worker_mb": _quarters([row[2] for row in self.curve]),
        }

    def _look(self, share: float) -> None:
        if time.monotonic() - self._looked < _SAMPLE_SECONDS:
            return
        self._looked = time.monotonic()
        driver = memory(self._process.pid)
        workers = [memory(p) for p, name in families(self._process.pid) if "ray::" in name]
        self.curve.append((share, driver, max(workers, default=0.0)))


def _quarters(values: list[float]) -> list[int]:
    """The greatest of each quarter of the run."""
    size = max(1, -(-len(values) // 4))
    return [round(max(values[i : i + size])) for i in range(0, len(values), size)]


def digest(folder: Path) -> str:
    """Of all files by name."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as stream:
                sha = hashlib.file_digest(stream, "sha256").hexdigest()
            found.update(f"{path.relative_to(folder)} {sha}\n".encode())
    return found.hexdigest()


def at_size(work: Path, episodes: int, steps: int, long: int, workers: list[int]) -> dict[str, Any]:
    source = work / f"source_{episodes}_{steps}_{long}"
    if not (source / "demos.json").exists():
        make_source(source, episodes, steps, long)
    found: dict[str, Any] = {"episodes": episodes, "steps": steps, "long": long, "runs": {}}
    killed = []
    for share in (*KILLS, 1.0):
        killed.append(watched(source, work / "killed", 2, work / "home_killed", share))
    found["runs"]["2 workers, 3 kills"] = killed
    sums = {"killed": digest(work / "killed")}
    _clear(work, "killed")
    for count in workers:
        name = f"out{count}"
        home = work / f"home{count}"
        found["runs"][f"{count} workers"] = watched(source, work / name, count, home)
        sums[name] = digest(work / name)
        _clear(work, name)
        shutil.rmtree(home)
    found["same bytes"] = len(set(sums.values())) == 1
    found["digest"] = sums["killed"]
    return found


def watched(source: Path, out: Path, cpus: int, home: Path, until: float = 1.0) -> dict[str, Any]:
    """A conversion; once more where it failed: Ray gives itself 30 s to start, which a machine that
    does much else exceeds."""
    for attempt in range(5):
        try:
            return Watch(source, out, cpus, home).run(until) | {"failed starts": attempt}
        except RuntimeError as error:
            print(error, file=sys.stderr)
    raise SystemExit(f"{out} cannot be converted")


def _clear(work: Path, name: str) -> None:
    shutil.rmtree(work / name)
    shutil.rmtree(work / f"home_{name}", ignore_errors=True)


def speed(work: Path, episodes: int = 4, steps: int = 250) -> dict[str, Any]:
    """CPU seconds per picture: LBM-like episodes of 480 x 640 pictures to 224 x 224."""
    source, pictures = work / "speed", [picture(seed, 480, 640) for seed in range(24)]
    folder = source / "episodes" / "t"
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(episodes):
        write_episode(folder / f"e{number}.tar", number, steps, pictures)
    (source / "demos.json").write_text("{}")
    options = [*OVERRIDES, ("image.size", list(_SPEED_SIZE))]
    ours, plain = [], []
    for _ in range(3):
        begun = cpu()
        with tempfile.TemporaryDirectory() as out:
            os.environ["FOUNDRY_HOME"] = str(work / "home")  # where the code's digest is kept
            (work / "home").mkdir(exist_ok=True)
            shutil.rmtree(work / "home/cache/units", ignore_errors=True)
            convert("demonstrations", str(source), Path(out, "shards"), options, cpus=1)
        ours.append(cpu() - begun)
        begun = cpu()
        for path in sorted(folder.iterdir()):
            with tarfile.open(path) as tar:
                for member in tar:
                    if member.name.startswith("front/"):
                        stream = tar.extractfile(member)
                        assert stream is not None
                        image = decode_image(io.BytesIO(stream.read()).getvalue())
                        small, _ = transform(image, _SPEED_SIZE, "center_crop")
                        encode_jpeg(small, ImageConfig().jpeg_quality)
        plain.append(cpu() - begun)
    count = episodes * steps
    return {
        "pictures": count,
        "ours_ms": round(1000 * min(ours) / count, 3),
        "plain_ms": round(1000 * min(plain) / count, 3),
        "ratio": round(min(ours) / min(plain), 3),
    }


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--long", type=int, default=0)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--work", type=Path)
    parser.add_argument("--speed", action="store_true")
    add_rows_argument(parser)
    options = parser.parse_args()
    work = options.work or Path(tempfile.mkdtemp(prefix="foundry-conversion-"))
    work.mkdir(parents=True, exist_ok=True)
    if options.speed:
        found = speed(work)
        row = Row(
            what="conversion of a 480 x 640 picture to 224 x 224",
            unit="CPU ms",
            ours=found["ours_ms"],
            beside="decode, resize, encode alone",
            theirs=found["plain_ms"],
        )
        write_rows(options.rows, [row])
    else:
        found = at_size(work, options.episodes, options.steps, options.long, options.workers)
    print(json.dumps(found, indent=1))
    if not options.work:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
