"""What a stage ran on: recorded as it was, compared with what there is, never identity."""

import importlib
import sys

import pytest

from foundry_core.home import home_dir
from foundry_core.identity import environment, packages
from foundry_core.identity.code import CodeIndex, fingerprint
from foundry_core.identity.environment import Drift, Environment, environment_of
from foundry_core.identity.packages import versions_of
from foundry_core.pipeline.drift import drift_line, drift_phrase

STAGE = """
import os
from os import environ, getenv
import numpy as np
from PIL import Image
from lab import _kernel
VARIABLE = "BY_CONSTANT"
unused = os.environ.get("NOT_READ")

def helper():
    import torch.nn
    return os.environ["BY_INDEX"]

class K:
    @staticmethod
    def run(ctx):
        os.environ["ONLY_WRITTEN"] = helper() + environ.get(VARIABLE) + getenv("BY_CALL", "")
        return "ASKED_FOR" in os.environ, Image
"""


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    packages._providers.cache_clear()
    yield
    packages._providers.cache_clear()


def install(site, name, version, **files):
    """A distribution of one package, as pip lays it out."""
    info = site / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")
    (info / "top_level.txt").write_text(f"{name}\n")
    (info / "RECORD").write_text("")
    for file, text in files.items():
        (info / file).write_text(text)
    (site / name).mkdir(exist_ok=True)
    (site / name / "__init__.py").touch()
    importlib.invalidate_caches()
    packages._providers.cache_clear()
    return info


@pytest.mark.parametrize("again", [False, True])
def test_the_code_says_what_it_imports_and_reads(tmp_path, again):
    lab = tmp_path / "lab"
    lab.mkdir()
    (lab / "k.py").write_text(STAGE)
    (lab / f"_kernel{importlib.machinery.EXTENSION_SUFFIXES[0]}").touch()
    found = fingerprint("lab.k", "K.run", index=CodeIndex({"lab": tmp_path}))
    if again:  # from the cache
        found = fingerprint("lab.k", "K.run", index=CodeIndex({"lab": tmp_path}))
    assert list(found.packages) == ["PIL", "lab._kernel", "numpy", "os", "torch"]
    assert list(found.variables) == ["ASKED_FOR", "BY_CALL", "BY_CONSTANT", "BY_INDEX"]


def test_another_version_is_drift(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    info = install(tmp_path, "glyphs", "1.0")
    before = environment_of(["glyphs", "json"], [], 0)
    assert before.packages == {"glyphs": "1.0", "python": sys.version.split()[0]}
    assert before.drift_to(before) == []
    info.rename(tmp_path / "glyphs-1.1.dist-info")
    packages._providers.cache_clear()
    drift = before.drift_to(environment_of(["glyphs"], [], 0))
    assert drift == [Drift(what="package", name="glyphs", old="1.0", new="1.1")]
    assert environment_of(["never_installed"], [], 0).packages["never_installed"] == ""


def test_a_rebuilt_extension_of_an_editable_package_is_drift(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    origin = '{"url": "file:///x", "dir_info": {"editable": true}}'
    install(tmp_path, "kernels", "1.0", **{"direct_url.json": origin})
    library = tmp_path / "kernels" / f"fast{importlib.machinery.EXTENSION_SUFFIXES[0]}"
    library.write_bytes(b"one")
    before = environment_of(["kernels"], [], 0)
    library.write_bytes(b"two")
    assert [d.name for d in before.drift_to(environment_of(["kernels"], [], 0))] == ["kernels"]


def test_what_a_build_left_in_the_current_folder_is_no_drift(tmp_path, monkeypatch):
    """`python -m` has a checkout's own *.egg-info on its path, the processes of stages have not."""
    site, checkout = tmp_path / "site", tmp_path / "checkout"
    for place in (site, checkout):
        place.mkdir()
    origin = '{"url": "file:///x", "dir_info": {"editable": true}}'
    install(site, "kernels", "1.0", **{"direct_url.json": origin})
    egg = checkout / "kernels.egg-info"
    egg.mkdir()
    (egg / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: kernels\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(site)
    packages._providers.cache_clear()
    before = environment_of(["kernels"], [], 0)
    monkeypatch.syspath_prepend(checkout)
    packages._providers.cache_clear()
    assert environment_of(["kernels"], [], 0) == before


def test_what_provides_a_module_is_asked_once_for_each_folder_of_the_path(tmp_path, monkeypatch):
    """Whatever else is on the path: a stage's process has other folders there than the command."""
    monkeypatch.setattr(packages, "settled", lambda stat: True)
    home_dir().mkdir()
    site, current = tmp_path / "site", tmp_path / "current"
    for place in (site, current):
        place.mkdir()
    install(site, "glyphs", "1.0")
    monkeypatch.syspath_prepend(site)
    assert versions_of(["glyphs"]) == {"glyphs": "1.0"}
    asked, folder = [], packages._folder
    monkeypatch.setattr(packages, "_folder", lambda *of: asked.append(of[0]) or folder(*of))
    monkeypatch.syspath_prepend(current)
    packages._providers.cache_clear()
    assert versions_of(["glyphs"]) == {"glyphs": "1.0"}
    assert str(current) in asked and str(site) not in asked
    install(site, "runes", "2.0")
    assert versions_of(["glyphs", "runes"]) == {"glyphs": "1.0", "runes": "2.0"}
    assert str(site) in asked


def test_modules_of_a_distribution_that_names_none_are_those_of_its_files(tmp_path, monkeypatch):
    info = install(tmp_path, "glyphs", "1.0")
    (info / "top_level.txt").unlink()
    (info / "RECORD").write_text("runes/deep/a.py,sha256=x,1\nalone.py,,\nruled/data.txt,,\n")
    monkeypatch.syspath_prepend(tmp_path)
    packages._providers.cache_clear()
    found = {module: versions_of([module]) for module in ("runes", "alone", "ruled")}
    assert found == {"runes": {"glyphs": "1.0"}, "alone": {"glyphs": "1.0"}, "ruled": {"ruled": ""}}


def test_a_rebuilt_extension_of_a_labs_package_is_drift(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "lab_kernels").mkdir()
    (tmp_path / "lab_kernels" / "__init__.py").touch()
    library = tmp_path / "lab_kernels" / f"fast{importlib.machinery.EXTENSION_SUFFIXES[0]}"
    library.write_bytes(b"one")
    before = environment_of(["lab_kernels.fast"], [], 0)
    library.write_bytes(b"two")
    now = environment_of(["lab_kernels.fast"], [], 0)
    assert [d.name for d in before.drift_to(now)] == ["lab_kernels.fast"]


def test_values_of_variables_are_told_apart_and_kept_secret(monkeypatch):
    names = ["WORDS_PER_LINE", "FOUNDRY_HOME", "MY_TOKEN"]
    monkeypatch.setenv("MY_TOKEN", "hush")
    unset = environment_of([], names, 0)
    monkeypatch.setenv("WORDS_PER_LINE", "ten thousand")
    found = environment_of([], names, 0)
    assert unset.variables == {"WORDS_PER_LINE": ""}
    assert [d.name for d in unset.drift_to(found)] == ["WORDS_PER_LINE"]
    assert "ten thousand" not in str(found.to_json())
    assert "hush" not in str(found.to_json())


def test_the_device_counts_where_torch_computes(monkeypatch):
    here = environment_of(["torch"], [], 0)
    assert here.numerics == {"cpu": environment.cpu_model()}
    assert environment_of(["numpy"], [], 0).numerics == {}
    monkeypatch.setattr(environment, "cpu_model", lambda: "another one")
    drift = here.drift_to(environment_of(["torch"], [], 0))
    assert [(d.what, d.name, d.new) for d in drift] == [("numerics", "cpu", "another one")]
    monkeypatch.setattr(environment, "gpu_names", lambda: ["H100", "H100"])
    assert environment_of(["torch"], [], 2).numerics == {"gpu": "H100"}
    monkeypatch.setattr(environment, "gpu_names", list)
    assert environment_of(["torch"], [], 2).numerics == {}, "another machine's are not known"


def test_nothing_recorded_is_no_drift():
    assert Environment.from_json(None).drift_to(environment_of(["torch"], ["X"], 0)) == []


def test_only_what_both_know_can_have_drifted():
    before = Environment(packages={"gone": "1", "kept": "1"}, numerics={"threads": "1"})
    now = Environment(packages={"kept": "2", "new": "1"})
    assert before.drift_to(now) == [Drift(what="package", name="kept", old="1", new="2")]


def test_how_many_threads_work_is_no_variable_of_the_result(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("LAB_SETTING", "x")
    found = environment_of([], ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "LAB_SETTING"])
    assert list(found.variables) == ["LAB_SETTING"]


@pytest.mark.parametrize(
    ("phrases", "line"),
    [("abc", "built with a; b; c"), ("abcd", "built with a; b; c; and 1 more")],
)
def test_three_reasons_are_said_and_the_rest_counted(phrases, line):
    assert drift_line(phrases) == line


def test_a_variable_that_has_another_value_is_said_without_it():
    assert drift_phrase("variable X", "0a", "0b") == "$X set, now otherwise"
    assert drift_phrase("variable X", "", "0b") == "$X unset, now set"
