import importlib.metadata
import re
import subprocess

from foundry_core.lineage.checkout import git_state
from foundry_core.lineage.provenance import collect_provenance, package_versions


def git(folder, *arguments):
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True
    )


def test_git_state_knows_clean_changed_and_untracked(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "code.py").write_text("x = 1\n")
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "-q", "-m", "start")
    clean = git_state(tmp_path)
    assert re.fullmatch("[0-9a-f]{40}", clean["commit"])
    assert (clean["dirty"], clean["diff_digest"], clean["diff"]) == (False, None, "")

    (tmp_path / "code.py").write_text("x = 2\n")
    changed = git_state(tmp_path)
    assert changed["dirty"] and "+x = 2" in changed["diff"]
    assert changed["commit"] == clean["commit"]

    (tmp_path / "new.py").write_text("y = 1\n")
    untracked = git_state(tmp_path)
    (tmp_path / "new.py").write_text("y = 2\n")
    assert len({changed["diff_digest"], untracked["diff_digest"]}) == 2
    assert git_state(tmp_path)["diff_digest"] != untracked["diff_digest"]


def test_no_checkout_is_no_error(tmp_path):
    assert git_state(tmp_path / "absent")["commit"] is None


def test_packages_are_those_of_importlib_metadata():
    def normal(name):
        return re.sub(r"[-_.]+", "-", name).lower()

    expected = {normal(d.metadata["Name"]): d.version for d in importlib.metadata.distributions()}
    assert package_versions() == expected


def test_collected_provenance_is_complete_and_of_this_machine():
    found = collect_provenance(["foundry", "plan"])
    assert set(found) == {
        "git",
        "packages",
        "hardware",
        "host",
        "python",
        "environment",
        "command",
    }
    assert found["hardware"]["cores"] >= 1 and found["hardware"]["memory"] > 2**28
