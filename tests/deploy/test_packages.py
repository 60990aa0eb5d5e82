"""What is built from this tree has all that the packages read, and works away from the tree."""

import os
import re
import signal
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from fnmatch import fnmatch
from itertools import chain
from pathlib import Path

import pytest

from tests.orchestration import free_port, until

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("flows", "tasks", "foundry_core", "stage_configs")
# Names that somebody's folder may well have, too.
THEIRS = ("flows", "tasks", "tests")


def _tracked(*folders):
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), "ls-files", "-z", "--", *folders],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this tree is no checkout that git can list: {error}")
    return [name for name in done.stdout.split("\0") if name and (ROOT / name).exists()]


def test_what_the_packages_read_beside_their_code_is_packed():
    globs = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packed = globs["package-data"]
    patterns = [f"*/{one}" for one in packed["*"]]
    patterns += [
        f"{package.replace('.', '/')}/{one}"
        for package, some in packed.items()
        if package != "*"
        for one in some
    ]
    left_out = [
        name
        for name in _tracked(*PACKAGES)
        if not name.endswith(".py") and not any(fnmatch(name, one) for one in patterns)
    ]
    assert left_out == []


def test_what_lies_beside_the_packages_is_archived():
    named = (ROOT / "MANIFEST.in").read_text().split()
    tops = {name.partition("/")[0] for name in _tracked()}
    hidden = {".gitignore", ".dockerignore"}
    assert tops - {*named, *PACKAGES, "MANIFEST.in", "pyproject.toml"} == hidden


def test_every_dependency_has_a_lower_bound_and_no_pin_is_below_it():
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    pins = {
        canonicalize_name(name): version
        for name, _, version in (
            line.partition("==") for line in (ROOT / "constraints.txt").read_text().split()
        )
    }
    for line in lines:
        asked = Requirement(line)
        operators = {one.operator for one in asked.specifier}
        assert operators & {">=", "==", "~="}, f"{line}: the lowest that works is not said"
        pin = pins.get(canonicalize_name(asked.name))
        assert pin is None or asked.specifier.contains(pin), f"{line}: constraints.txt has {pin}"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """(source archive, wheel that was built from what it holds)."""
    folder = tmp_path_factory.mktemp("dist")
    tree = folder / "tree"
    for name in _tracked():
        target = tree / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    source = folder / _build("sdist", tree, folder)
    with tarfile.open(source) as tar:
        tar.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    return source, folder / _build("wheel", unpacked, folder)


def _build(what, tree, out):
    code = f"import setuptools.build_meta as b; print(b.build_{what}({str(out)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1]


@pytest.mark.slow("copies and packs the whole tree twice")
def test_the_archive_has_the_tree_and_the_wheel_the_packages(built):
    source, wheel = built
    with tarfile.open(source) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    assert set(_tracked()) - names <= {".gitignore", ".dockerignore"}
    with zipfile.ZipFile(wheel) as packed:
        inside = set(packed.namelist())
        (metadata,) = (name for name in inside if name.endswith(".dist-info/METADATA"))
        text = packed.read(metadata).decode()
    assert {name for name in inside if ".dist-info/" not in name} == set(_tracked(*PACKAGES))
    assert "License-Expression: MIT" in text
    assert "Requires-Dist: torch" in text


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """The programs of an environment with the wheel and the packages of this one, not this tree."""
    env = tmp_path_factory.mktemp("env") / "v"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(env)], check=True)
    (site,) = env.glob("lib/python*/site-packages")
    # A path that a .pth names is searched, its own .pth files are not: no editable install leaks.
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = str(env / "bin" / "python")
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
    subprocess.run([*install, "--no-deps", "--no-index", str(built[1])], check=True)
    return env / "bin"


def _clean(home):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "FOUNDRY"))}
    return {**kept, "HOME": str(home), "OMP_NUM_THREADS": "1"}


@pytest.mark.slow("an installation and a run in it")
@pytest.mark.parametrize("theirs", [False, True], ids=["an empty folder", "their own flows/"])
def test_installed_it_works_in_a_folder_of_anybody(installed, tmp_path, theirs):
    folder = tmp_path / "work"
    for name in THEIRS if theirs else ():
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("raise RuntimeError('this is not ours')\n")
    folder.mkdir(exist_ok=True)

    def foundry(*words, cwd=folder):
        done = subprocess.run(
            [str(installed / "foundry"), *words],
            cwd=cwd,
            env=_clean(tmp_path),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    where = "import flows, tasks; print(flows.__file__, tasks.__file__)"
    python = [str(installed / "python"), "-P", "-c", where]
    found = subprocess.run(
        python, cwd=folder, env=_clean(tmp_path), capture_output=True, text=True, check=True
    )
    assert all(str(installed.parent) in path for path in found.stdout.split())
    assert re.match(r"foundry \d", foundry("--version"))
    foundry("init", "mine")
    project = folder / "mine"
    if theirs:  # in the project, too: its stages start from there
        (project / "flows").mkdir()
        (project / "flows" / "__init__.py").write_text("raise RuntimeError('not ours')\n")
    assert "sizes" in foundry("plan", "mine", cwd=project)
    foundry("run", "mine", "--only", "text", cwd=project)
    assert "reuse" in foundry("plan", "mine", "--only", "text", cwd=project)


@pytest.mark.slow("an installation, a server and a deployment's run")
@pytest.mark.timeout(900)
def test_installed_it_serves_and_runs_what_a_deployment_asks_for(installed, tmp_path):
    """Where the current folder has packages of our names: workers and stages start from there."""
    folder, port = tmp_path / "work", free_port()
    folder.mkdir()
    foundry = str(installed / "foundry")
    clean = _clean(tmp_path)
    subprocess.run([foundry, "init", "mine"], cwd=folder, env=clean, check=True)
    project = folder / "mine"
    for name in THEIRS[:2]:
        (project / name).mkdir()
        (project / name / "__init__.py").write_text("raise RuntimeError('this is not ours')\n")
    log = tmp_path / "serve.log"
    with log.open("w") as said:
        serving = subprocess.Popen(
            [foundry, "serve", "--port", str(port)], cwd=project, env=clean, stderr=said
        )
    try:
        until(lambda: "ready in" in log.read_text() or serving.poll(), 300, "serve is ready")
        password = (project / ".foundry" / "serve" / "password").read_text()
        known = {
            "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
            "PREFECT_API_AUTH_STRING": password,
        }
        asked = ("-p", "pipeline=mine", "-p", 'stages=["text"]', "--watch")
        run = [str(installed / "python"), "-P", "-m", "prefect", "deployment", "run"]
        done = subprocess.run(
            [*run, "foundry/full", *asked],
            cwd=tmp_path,
            env={**clean, **known},
            capture_output=True,
            text=True,
            timeout=500,
        )
        assert done.returncode == 0, done.stdout + done.stderr + log.read_text()
        assert "Completed" in done.stdout
    finally:
        serving.send_signal(signal.SIGINT)
        assert serving.wait(90) == 130
    assert "stopped, as asked" in log.read_text()
    plan = [foundry, "plan", "mine", "--only", "text"]
    planned = subprocess.run(plan, cwd=project, env=clean, capture_output=True, text=True)
    assert "nothing to run" in planned.stdout, planned.stdout + planned.stderr
