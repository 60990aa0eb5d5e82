"""Whatever lies in the checkout, recording its state reads little and ends."""

import os

import pytest

from foundry_core.lineage import checkout as module
from foundry_core.lineage.checkout import git_state


def sparse(path, size):
    with path.open("wb") as stream:
        stream.truncate(size)


def test_large_untracked_files_are_named_and_not_read(checkout, monkeypatch):
    read = []
    digest = module._digest
    monkeypatch.setattr(module, "_digest", lambda path, size: read.append(size) or digest(path, 0))
    for number in range(3):
        sparse(checkout / f"data{number}.bin", 2**30)
    (checkout / "small.py").write_text("y = 1\n")
    state = git_state(checkout)
    assert read == [6]
    assert state["left_out"] == 3 and state["dirty"]
    assert f"untracked data0.bin not read: {2**30} bytes" in state["diff"]
    assert "3 of the changes are left out" in state["diff"]


def test_a_large_file_that_changed_changes_the_digest(checkout):
    sparse(checkout / "data.bin", 2**30)
    before = git_state(checkout)["diff_digest"]
    sparse(checkout / "data.bin", 2**30 + 1)
    assert git_state(checkout)["diff_digest"] != before


def test_many_untracked_files_are_read_up_to_a_count(checkout):
    for number in range(1100):
        (checkout / f"f{number}").write_text("x")
    state = git_state(checkout)
    assert state["left_out"] == 100
    assert state["diff"].count("\nuntracked f") == 1100


def test_more_names_than_are_kept_say_so(checkout, monkeypatch):
    monkeypatch.setattr(module, "_MAX_DIFF", 4000)
    monkeypatch.setattr(module.output, "__kwdefaults__", {"most": 4000})
    for number in range(300):
        (checkout / f"a-file-with-a-long-name-{number}").write_text("x")
    state = git_state(checkout)
    assert state["left_out"] == 1 and len(state["diff"]) < 4300
    assert "1 of the changes are left out" in state["diff"]


@pytest.mark.parametrize("target", ["/dev/zero", "/dev/stdin", "nowhere", "link"])
def test_links_are_named_and_never_followed(checkout, target):
    (checkout / "link").symlink_to(target)
    state = git_state(checkout)
    assert state["diff"].strip() == f"untracked link link to {target}"
    assert state["left_out"] == 0


def test_a_pipe_is_not_opened(checkout):
    os.mkfifo(checkout / "pipe")
    (checkout / "real").write_text("x")
    diff = git_state(checkout)["diff"]  # git itself does not name a pipe
    assert "untracked real" in diff and "pipe" not in diff


def test_a_file_that_became_a_pipe_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert module._digest(tmp_path / "pipe", 10) == "no regular file"


def test_a_driver_of_the_users_configuration_is_not_run(checkout):
    (checkout / ".git" / "config").open("a").write('[diff]\nexternal = "touch ran; sleep 100"\n')
    (checkout / "code.py").write_text("x = 2\n")
    assert "+x = 2" in git_state(checkout)["diff"]
    assert not (checkout / "ran").exists()


def test_a_git_that_does_not_end_is_ended_and_said(checkout, monkeypatch, tmp_path):
    slow = tmp_path / "bin" / "git"
    slow.parent.mkdir()
    slow.write_text('#!/bin/sh\ncase "$*" in *rev-parse*) echo abc;; *) exec sleep 100;; esac\n')
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(module, "_SECONDS", 0.2)
    state = git_state(checkout)
    assert (state["commit"], state["dirty"], state["left_out"]) == ("abc", True, 2)
