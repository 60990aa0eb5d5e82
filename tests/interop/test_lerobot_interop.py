"""What `foundry data export --to lerobot` writes, read by LeRobot itself.

FOUNDRY_INTEROP_LEROBOT names a Python that has it:
    python3 -m venv lerobot && lerobot/bin/pip install lerobot==0.4.4
"""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from foundry_core.data.export.lerobot import export_lerobot
from foundry_core.data.images import decode_image
from foundry_core.data.sources.robot.lerobot import Lerobot
from tests.lerobot_sets import digits, make_coded_shards, read_digits

PYTHON = os.environ.get("FOUNDRY_INTEROP_LEROBOT", "")
LENGTHS = (12, 23, 9)
FRONT = "observation.images.front"


@pytest.mark.slow
@pytest.mark.skipif(
    not PYTHON,
    reason="FOUNDRY_INTEROP_LEROBOT names no Python with LeRobot: python3 -m venv lerobot && "
    "lerobot/bin/pip install lerobot==0.4.4",
)
@pytest.mark.parametrize("images", ["png", "video"])
def test_lerobot_reads_what_we_export(tmp_path, images):
    out = tmp_path / "out"
    export_lerobot(str(make_coded_shards(tmp_path / "shards", LENGTHS)), out, images=images)
    script = Path(__file__).with_name("lerobot_reads.py")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    subprocess.run(
        [PYTHON, str(script), str(out), str(tmp_path / "read.npz")],
        check=True,
        timeout=240,
        env={**environment, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")},
    )
    source = Lerobot(path=str(out))
    read = [source.read_episode(ref) for ref in source.episodes()]
    with np.load(tmp_path / "read.npz") as theirs:
        for name in read[0].lowdim:
            ours = np.concatenate([episode.lowdim[name] for episode in read])
            assert np.array_equal(ours, theirs[name].reshape(ours.shape)), name
            values = np.concatenate([episode.lowdim[name] for episode in read]).astype(np.float64)
            assert np.allclose(theirs[f"stats|{name}|mean"], values.mean(0)), name
        assert theirs["tasks"].tolist() == [
            episode.task for episode in read for _ in range(episode.length)
        ]
        pictures = [(n, s, p) for n, e in enumerate(read) for s, p in enumerate(e.images[FRONT])]
        for (number, step, picture), given in zip(pictures, theirs[FRONT], strict=True):
            assert read_digits(given) == digits(number, step)
            ours = decode_image(picture) if isinstance(picture, bytes) else picture
            assert np.array_equal(ours, given)
