import subprocess

import pytest


@pytest.fixture
def checkout(tmp_path):
    """A git checkout with one committed file, code.py."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "code.py").write_text("x = 1\n")
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "start"]):
        subprocess.run(["git", "-C", str(folder), *command], check=True, capture_output=True)
    return folder
