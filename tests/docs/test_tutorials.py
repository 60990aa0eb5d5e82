"""Every tutorial, as a reader goes it: its files are written, its commands run in their order."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flows.runs.planning import Request, prepare
from foundry_core.models.policy_settings import PolicySettings
from foundry_core.serving.mapping import served_as
from foundry_core.training.words import PLANNED
from tests.conftest import REPOSITORY
from tests.docs.pages import DOCS, blocks
from tests.lerobot_sets import make_old
from tests.real_data import ABSENT, FORMATS

RECORDINGS = FORMATS / "lerobot_v30_video" / "data_root"


def walk(page: str, folder: Path, variables: dict[str, str] | None = None) -> str:
    """What the page's commands print, in a folder that they leave their files in."""
    tools = folder / "bin"
    tools.mkdir(parents=True)
    for name, call in {"foundry": "-m flows.cli", "python": ""}.items():
        tool = tools / name
        tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" {call} "$@"\n')
        tool.chmod(0o755)
    work = folder / "work"
    work.mkdir(exist_ok=True)
    hidden = ("FOUNDRY_", "PREFECT_")
    env = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}
    env |= {
        "PATH": f"{tools}{os.pathsep}{env['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "1",
        **(variables or {}),
    }
    shown, before = "", os.times()
    for block in blocks(DOCS / "tutorials" / page):
        if block.file:
            path = work / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
        elif block.is_run:
            ran = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", block.text],
                cwd=work,
                env=env,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=2400,
            )
            shown += f"$ {block.text}{ran.stdout}"
            assert ran.returncode == 0, shown[-6000:]
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user
    print(f"{page}: {cpu - before.children_system:.0f} s of CPU")
    (folder / "shown.txt").write_text(shown)
    return shown


@pytest.mark.slow("runs every command of a tutorial")
@pytest.mark.timeout(3600)
def test_first_cross_stage_ablation(tmp_path):
    shown = walk("first-ablation.md", tmp_path)
    assert "not separated from the base" in shown
    planned = actions(shown.split("$ foundry plan small.yaml -o")[1].split("$ foundry")[0])
    built = {name for name, action in planned.items() if action == "run"}
    assert built == {"llm", "vlm", "vla", "evaluate"}
    reused = {"demos", "scenes", "tokenizer", "text", "captions", "robot", "stats"}
    assert planned.keys() - built == reused


@pytest.mark.slow("runs every command of a tutorial")
@pytest.mark.timeout(2400)
@pytest.mark.skipif(not RECORDINGS.is_dir(), reason=ABSENT)
def test_own_robots_data(tmp_path):
    (tmp_path / "work").mkdir()
    shutil.copytree(RECORDINGS, tmp_path / "work" / "recordings", copy_function=shutil.copyfile)
    shown = walk("own-robot.md", tmp_path)
    assert "validation/raw/robot/gripper/7" in shown
    ended = shown.partition("$ foundry run arm.yaml\n")[2]
    assert "held out, vla: robot " in ended and "share of its stroke (mean action 0." in ended
    (report,) = (tmp_path / "work" / ".foundry" / "runs").glob("*/report.html")
    assert (
        "On held-out data" in report.read_text() and "windows of 2 episodes" in report.read_text()
    )
    assert (tmp_path / "work" / "sheet.png").stat().st_size > 1000


@pytest.mark.slow("runs every command of a tutorial")
@pytest.mark.timeout(2400)
def test_a_backbone_of_others(tmp_path):
    from tests.hf_checkpoints import make_vlm

    make_vlm(tmp_path / "work" / "checkpoint", "smolvlm")
    shown = walk("backbone.md", tmp_path)
    planned = actions(shown.split("$ foundry plan swapped.yaml")[1].split("$ foundry")[0])
    assert (planned["captions"], planned["vlm"]) == ("reuse", "run")
    runs = [path.name for path in (tmp_path / "work/.foundry/store/import_vlm").iterdir()]
    assert len(runs) == 1
    assert "swapped" in shown and "succeeded" in shown.rpartition("$ foundry run swapped")[2]


@pytest.mark.slow("runs every command of a tutorial")
@pytest.mark.timeout(2400)
def test_serve_a_policy(tmp_path):
    shown = walk("serve.md", tmp_path)
    assert shown.count("(") and all(f"{step} (" in shown for step in range(6))
    assert "False" not in shown
    assert '"rot6d_rows"' in shown and '"first": 3' in shown
    work = tmp_path / "work"
    (folder,) = (work / ".foundry/store/train_vla").iterdir()
    contract = PolicySettings.load(folder).contract
    mapping, _ = served_as(contract, str(work / "mappings/serve.yaml"), "openpi")
    (pose,) = mapping.commanded.poses.values()
    assert pose.rotation.form == "euler_xyz"
    assert '"status": "ok"' in shown
    assert "stops: 6 observations" in shown or "stops: 2 observations" in shown


def actions(plan: str) -> dict[str, str]:
    """stage → action, out of a plan's table: its columns are stage, key, action."""
    rows = [[cell.strip() for cell in line.split("│")] for line in plan.splitlines()]
    return {row[1]: row[3] for row in rows if len(row) > 4}


def test_the_pages_policy_that_reads_words_plans_on_the_data_of_the_one_that_does_not(
    tmp_path, monkeypatch
):
    """On recordings with the page's cameras and sizes: one conversion for both, and only of the one
    without `text` the plan says that it reads no words."""
    make_old(tmp_path / "recordings")
    info = tmp_path / "recordings/meta/info.json"
    described = json.loads(info.read_text())
    camera = described["features"].pop("observation.images.front")
    numbers = {"dtype": "float32", "names": None}
    described["features"] |= {
        "observation.images.front": camera,
        "observation.images.wrist": camera,
        "observation.state": {**numbers, "shape": [8]},
        "action": {**numbers, "shape": [7]},
    }
    info.write_text(json.dumps(described))
    for block in blocks(DOCS / "tutorials" / "own-robot.md"):
        if block.file:
            (tmp_path / block.file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / block.file).write_text(block.text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    arm, words = (prepare(Request(pipeline=name)) for name in ("arm.yaml", "words.yaml"))
    for name in ("robot", "stats"):
        assert arm.specs[name].key == words.specs[name].key
    assert words.pipeline.stages["vla"].inputs["tokenizer"] == {"": "tokenizer"}
    assert words.specs["vla"].key != arm.specs["vla"].key
    assert PLANNED in arm.plan.stages["vla"].notes
    assert PLANNED not in words.plan.stages["vla"].notes
