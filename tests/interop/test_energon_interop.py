"""Our shards prepared by energon's own tool and read by its loader.

FOUNDRY_INTEROP_ENERGON names a Python that has it:
    python3 -m venv energon && energon/bin/pip install megatron-energon
"""

import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest

from foundry_core.data.shards.read import ShardSet
from tests.synthetic import make_captions, make_robot, make_text

PYTHON = os.environ.get("FOUNDRY_INTEROP_ENERGON", "")


@pytest.mark.slow("another program in an environment of its own")
@pytest.mark.skipif(
    not PYTHON,
    reason="FOUNDRY_INTEROP_ENERGON names no Python with energon: python3 -m venv energon && "
    "energon/bin/pip install megatron-energon",
)
@pytest.mark.parametrize("make", [make_robot, make_captions, make_text])
def test_energon_reads_every_member_of_every_sample(tmp_path, make):
    folder = make(tmp_path / "shards")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    prepare = [
        Path(PYTHON).with_name("energon"), "prepare", folder, "--non-interactive",
        "--split-ratio", "1,0,0", "--sample-type", "CrudeWebdataset", "--num-workers", "1",
    ]  # fmt: skip
    script = Path(__file__).with_name("energon_reads.py")
    for command in (prepare, [PYTHON, script, folder, tmp_path / "read.json"]):
        subprocess.run(command, check=True, timeout=240, env=environment, capture_output=True)
    shards = ShardSet(folder)
    assert json.loads((tmp_path / "read.json").read_text()) == {
        shards.key(number): {
            name: hashlib.sha256(data).hexdigest() for name, data in shards.members(number).items()
        }
        for number in range(len(shards))
    }
