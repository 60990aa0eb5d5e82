"""benchmarks/gpu at a width that a CPU can do."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow("measures several trainings")
def test_the_script_writes_its_table(tmp_path):
    out = tmp_path / "table.md"
    words = ["checks", "llm-eager", "vla", "llm-fp8"]
    chosen = [part for word in words for part in ("--only", word)]
    command = ["benchmarks/gpu/run.sh", "--device", "cpu", "--scale", "tiny", "--out", str(out)]
    environment = os.environ | {"PYTHON": sys.executable}
    subprocess.run([*command, *chosen], cwd=ROOT, env=environment, check=True, timeout=280)
    lines = out.read_text().splitlines()
    assert sum(line.startswith("- ") for line in lines) == 6
    assert "FAILED" not in out.read_text()
    vla, eights, llm = lines[-3:]
    assert "tokens/s" in llm
    assert "samples/s" in vla
    installed = importlib.util.find_spec("torchao") is not None
    assert ("tokens/s" if installed else "skipped, torchao is not installed") in eights
    assert all(len(row.split("|")) == 8 for row in (llm, eights, vla))
