"""One look at the modules of our packages serves a whole plan."""

from foundry_core.identity import code
from foundry_core.identity.code import CodeIndex, fingerprint, sharing

ENTRY = ("tasks.merge_stats", "MergeStats.run")


def test_what_is_given_no_index_takes_the_shared_one(monkeypatch, small_home):
    index, made = CodeIndex(), []
    wanted = fingerprint(*ENTRY, index=index)
    make = code.CodeIndex
    monkeypatch.setattr(code, "CodeIndex", lambda: made.append(1) or make())
    with sharing(index):
        assert fingerprint(*ENTRY) == wanted
    assert not made
    assert fingerprint(*ENTRY) == wanted
    assert made == [1]


def test_an_edit_is_seen_by_the_next_index(tmp_path, monkeypatch, small_home):
    package = tmp_path / "lab_shared"
    package.mkdir()
    module = package / "__init__.py"
    module.write_text("def run():\n    return 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = fingerprint("lab_shared", "run").digest
    module.write_text("def run():\n    return 22\n")
    with sharing(CodeIndex()):
        assert fingerprint("lab_shared", "run").digest != before
