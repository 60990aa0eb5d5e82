"""How long a save keeps a training waiting, and how long it takes to lie on the disk.

    python benchmarks/saving.py [--million 100] [--folder DIR] [--device cpu]

State of so many million float32 weights with AdamW's moments and an average, on one process: the
first save makes the buffers, the later ones fill them. Beside it: what the write takes in its
thread, and what gathering and writing it in place would (the way before).
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from rows import Row, add_rows_argument, write_rows
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[1]))

from foundry_core.files import sha256_of, sync
from foundry_core.training.checkpoint import CheckpointFolder
from foundry_core.training.distributed import World
from foundry_core.training.saving import Saver


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--million", type=float, default=100)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--device", default="cpu")
    add_rows_argument(parser)
    given = parser.parse_args()
    device = torch.device(given.device)
    layers = max(1, round(given.million * 1e6 / 1024**2))
    tensors = {
        f"{part}/layer{i}": torch.randn(1024, 1024, device=device)
        for part in ("model", "exp_avg", "exp_avg_sq", "ema")
        for i in range(layers)
    }
    gigabytes = sum(t.nbytes for t in tensors.values()) / 1e9
    folder = Path(tempfile.mkdtemp(dir=given.folder))
    try:
        saver = Saver(CheckpointFolder(folder), tensors, World(device=device))
        blocked, written = [], []
        for step in range(1, 5):
            began = time.perf_counter()
            saver.save(step, tensors, {})
            blocked.append(time.perf_counter() - began)
            saver.finish()
            written.append(time.perf_counter() - began - blocked[-1])
        began = time.perf_counter()
        save_file({n: t.cpu() for n, t in tensors.items()}, folder / "whole")
        sha256_of(folder / "whole")
        sync(folder / "whole")
        in_place = time.perf_counter() - began
    finally:
        shutil.rmtree(folder)
    print(
        f"{gigabytes:.2f} GB on {device}: blocked {blocked[0]:.2f} s at the first save, "
        f"{statistics.median(blocked[1:]):.3f} s later; written in {statistics.median(written):.2f}"
        f" s; in place {in_place:.2f} s"
    )
    row = Row(
        what=f"a training waits for a save of {gigabytes:.2f} GB",
        unit="s",
        ours=statistics.median(blocked[1:]),
        beside="written in place",
        theirs=in_place,
    )
    write_rows(given.rows, [row])


if __name__ == "__main__":
    main()
