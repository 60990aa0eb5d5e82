"""`foundry init NAME`: a folder for pipelines, stage kinds and mappings of one's own."""

import argparse
import re
from pathlib import Path

from flows.cli.commands.common import print_json
from foundry_core.errors import FoundryError
from foundry_core.files import write_atomic
from foundry_core.project import MARKER

_NAME = re.compile(r"[a-z][a-z0-9-]{0,49}")

_FILES = {
    MARKER: """\
# What `foundry` reads in this folder and below: no environment variables are needed.
[project]
kinds = ["{package}_kinds"]
pipelines = ["pipelines"]
""",
    ".gitignore": """\
.foundry/
__pycache__/
""",
    "README.md": """\
# {name}

    foundry plan {name}          # what would run, and why
    foundry run {name}           # do it
    foundry config {name} vla    # what every setting is worth, and who says so
    python -m pytest tests       # the pipelines plan, the kind works

- `pipelines/{name}.yaml`: includes Foundry's smallest pipeline and changes it.
- `{package}_kinds/`: stage kinds of your own, one file each.
- `mappings/robot.yaml`: which fields of your recordings mean what. `foundry data inspect PATH`
  drafts one.
- State lies in `.foundry` here.
""",
    "pipelines/{name}.yaml": """\
# `foundry stages KIND` says what can be set; `foundry config {name}` what is.
include: pipelines/demo-fast
name: {name}
description: Foundry's smallest pipeline, and a stage of our own
stages:
  sizes:
    kind: shard_sizes
    inputs: {{datasets: [text, captions, robot]}}
""",
    "{package}_kinds/__init__.py": '''\
"""Stage kinds of {name}: a file each, called as the kind is."""
''',
    "{package}_kinds/shard_sizes.py": '''\
"""How many bytes of shards each dataset has: an example of a stage kind."""

import json

from foundry_core.pipeline.stage import ArtifactType, Recipe, Stage, slot


class ShardSizesRecipe(Recipe):
    unit: int = 1024


class ShardSizes(Stage):
    kind = "shard_sizes"
    output = ArtifactType.TEXT
    seeded = False
    Recipe = ShardSizesRecipe
    inputs = {{
        "datasets": slot(
            ArtifactType.TEXT_SHARDS,
            ArtifactType.CAPTION_SHARDS,
            ArtifactType.ROBOT_SHARDS,
            many=True,
        )
    }}

    @staticmethod
    def run(ctx):
        sizes = {{
            label: sum(tar.stat().st_size for tar in artifact.path.glob("*.tar")) // ctx.recipe.unit
            for label, artifact in ctx.inputs["datasets"].items()
        }}
        (ctx.out / "sizes.json").write_text(json.dumps(sizes, sort_keys=True))
        return sizes


STAGE = ShardSizes
''',
    "mappings/robot.yaml": """\
# Recorded fields to Foundry's names (docs/data.md has the list). A first draft for your data:
#     foundry data inspect PATH --mapping mappings/robot.yaml
# and in a pipeline, below convert_robot's source:
#     mapping: {{include: ../mappings/robot}}
hz: 10
cameras:
  scene: {{from: image}}
fields:
  robot__actual__joints: {{from: state}}
  robot__action__joints: {{from: action}}
""",
    "tests/test_{package}.py": '''\
"""Every pipeline of this project can be planned, and its kinds do what they say."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

import flows
from {package}_kinds.shard_sizes import STAGE

PIPELINES = sorted(Path(__file__).parents[1].glob("pipelines/*.yaml"))


@pytest.mark.parametrize("path", PIPELINES, ids=lambda path: path.stem)
def test_it_can_be_planned(path):
    assert flows.plan(str(path)).stages


def test_sizes_are_of_all_shards_of_a_dataset(tmp_path):
    for name in ("a.tar", "b.tar"):
        (tmp_path / name).write_bytes(bytes(3000))
    dataset, recipe = SimpleNamespace(path=tmp_path), STAGE.Recipe(unit=1000)
    inputs = {{"datasets": {{"text": dataset}}}}
    context = SimpleNamespace(recipe=recipe, inputs=inputs, out=tmp_path)
    assert STAGE.run(context) == {{"text": 6}}
    assert json.loads((tmp_path / "sizes.json").read_text()) == {{"text": 6}}
''',
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="of the new folder: a path whose last part names the project")


def run(options: argparse.Namespace) -> int:
    folder = Path(options.name)
    name = folder.name
    if not _NAME.fullmatch(name):
        raise FoundryError(
            f"{name!r} cannot name a project",
            "small letters, digits and -, from a letter on: my-lab",
        )
    if folder.exists() and any(folder.iterdir()):
        raise FoundryError(f"{folder} exists and is not empty", "name another folder")
    names = {"name": name, "package": name.replace("-", "_")}
    written = [folder / path.format(**names) for path in _FILES]
    for path, text in zip(written, _FILES.values(), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text.format(**names))
    if options.json:
        print_json([str(path) for path in written])
        return 0
    print("\n".join(map(str, written)))
    print(f"next:\n  cd {folder}\n  foundry plan {name}")
    return 0
