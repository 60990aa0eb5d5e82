"""The open sets of raw formats: what is found, what is refused, what planning loads."""

import re
import subprocess
import sys
from typing import Literal

import pytest

from foundry_core.config.canonical import canonical
from foundry_core.config.validation import validate
from foundry_core.data.sources.base import (
    CAPTION_FORMATS,
    ROBOT_FORMATS,
    TEXT_FORMATS,
    PathSource,
    RobotFormat,
    SourceRef,
)
from foundry_core.errors import FoundryError
from tasks.convert_captions import ConvertCaptionsRecipe
from tasks.convert_text import ConvertTextRecipe

SETS = {
    "text": (
        TEXT_FORMATS,
        {"arrow", "jsonl", "packages", "parquet", "text_tars", "token_tars", "txt"},
    ),
    "captions": (
        CAPTION_FORMATS,
        {"image_arrow", "image_parquet", "imagefolder", "img2dataset", "scenes"},
    ),
    "robot": (
        ROBOT_FORMATS,
        {
            "aloha",
            "demonstrations",
            "lerobot",
            "libero_hdf5",
            "rlds",
            "robomimic",
            "spartan",
            "zarr_replay",
        },
    ),
}


@pytest.mark.parametrize("name", SETS)
def test_a_format_is_called_as_its_file(name):
    registry, expected = SETS[name]
    assert expected <= set(registry.names())
    for format_ in registry.names():
        assert registry.get(format_).model_fields["format"].default == format_


def test_no_name_means_two_formats():
    names = [name for registry, _ in SETS.values() for name in registry.names()]
    assert len(set(names)) == len(names), "`data convert --from NAME` asks for one"


def test_planning_loads_no_reader():
    code = (
        "import sys\n"
        "from foundry_core.data.sources.base import *\n"
        "for formats in (TEXT_FORMATS, CAPTION_FORMATS, ROBOT_FORMATS):\n"
        "    [formats.get(name) for name in formats.names()]\n"
        "heavy = {'numpy', 'pyarrow', 'huggingface_hub', 'PIL', 'torch', 'yaml', 'h5py'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    code = code.replace("import *", "import CAPTION_FORMATS, ROBOT_FORMATS, TEXT_FORMATS")
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_recipe_holds_the_chosen_format_and_comes_back_equal():
    recipe = ConvertTextRecipe(source={"format": "jsonl", "path": "/a", "field": "body"})
    assert type(recipe.source) is TEXT_FORMATS.get("jsonl")
    assert ConvertTextRecipe.model_validate_json(recipe.model_dump_json()) == recipe
    assert ConvertTextRecipe(source=recipe.source) == recipe
    assert canonical(recipe.source) == {"field": "body", "format": "jsonl"}, "no location"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"format": "jsnol", "path": "/a"}, "unknown text format 'jsnol'.*jsonl"),
        ({"format": "spartan", "path": "/a"}, "unknown text format 'spartan'"),
        ({"path": "/a"}, "format is required .valid: .*jsonl, packages, parquet"),
        ({"format": "jsonl", "path": "/a", "feild": "x"}, "feild"),
        ("/a", "a mapping is expected"),
    ],
)
def test_what_is_no_source_is_refused(source, message):
    with pytest.raises(FoundryError) as caught:
        validate(ConvertTextRecipe, {"source": source}, "text")
    assert re.search(message, str(caught.value))


def test_a_source_may_be_absent():
    assert ConvertCaptionsRecipe().source is None


def test_a_format_without_a_reader_is_refused_by_the_name_of_what_it_lacks():
    with pytest.raises(FoundryError, match="Half defines no read_episode"):

        class Half(RobotFormat, PathSource):
            format: Literal["half"] = "half"

            def episodes(self) -> list[SourceRef]:
                return []


def test_a_place_on_a_command_line_becomes_the_fields_of_its_format(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert TEXT_FORMATS.get("txt").options("raw") == {"path": str(tmp_path / "raw")}
    assert TEXT_FORMATS.get("txt").options("s3://bucket/raw") == {"path": "s3://bucket/raw"}
    assert TEXT_FORMATS.get("packages").options("numpy,torch") == {"packages": ["numpy", "torch"]}
