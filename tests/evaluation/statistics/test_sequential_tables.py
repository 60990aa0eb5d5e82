"""A table is designed once; whatever else lies in its file is built again."""

import io

import numpy as np
import pytest

from flows import cli
from foundry_core.evaluation.statistics import sequential_tables
from foundry_core.evaluation.statistics.sequential import SequentialDesign, build_table
from foundry_core.evaluation.statistics.sequential_tables import designed_table

DESIGN = SequentialDesign(n_max=12)
OTHERS = [
    SequentialDesign(n_max=13),
    SequentialDesign(n_max=12, alpha=0.04),
    SequentialDesign(n_max=12, spending="linear"),
    SequentialDesign(n_max=12, two_sided=False),
    SequentialDesign(n_max=12, look_every=3),
]


@pytest.fixture
def built(tmp_path, monkeypatch):
    """The designs built so far, in a home without tables."""
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path))
    designs = []

    def counted(design):
        designs.append(design)
        return build_table(design)

    monkeypatch.setattr(sequential_tables, "build_table", counted)
    return designs


def equal(one, other) -> bool:
    arrays = ("critical", "cells", "share")
    same = all(np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays)
    return same and (one.design, one.error) == (other.design, other.error)


def test_the_second_call_builds_nothing(built, tmp_path):
    first = designed_table(DESIGN)
    assert equal(designed_table(DESIGN), first)
    assert equal(first, build_table(DESIGN))
    assert built == [DESIGN]
    (path,) = (tmp_path / "cache" / "sequential").iterdir()
    with np.load(path, allow_pickle=False) as stored:
        assert set(stored) == {"critical", "cells", "share", "error", "seal"}


@pytest.mark.parametrize("other", OTHERS, ids=str)
def test_every_part_of_a_design_has_a_table_of_its_own(built, other):
    designed_table(DESIGN)
    assert equal(designed_table(other), build_table(other))
    assert equal(designed_table(DESIGN), build_table(DESIGN))
    assert built == [DESIGN, other]


def test_damage_anywhere_is_built_again(built, tmp_path):
    table = designed_table(DESIGN)
    (path,) = (tmp_path / "cache" / "sequential").iterdir()
    whole = path.read_bytes()
    assert len(whole) > 1000
    for at in range(0, len(whole), 37):
        for damaged in (
            whole[:at],
            whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :],
        ):
            path.write_bytes(damaged)
            assert equal(designed_table(DESIGN), table)
    path.write_bytes(whole[:-1])
    count = len(built)
    designed_table(DESIGN)
    designed_table(DESIGN)
    assert len(built) == count + 1


def rewritten(path, **changes) -> bytes:
    with np.load(path) as stored:
        arrays = dict(stored) | changes
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


@pytest.mark.parametrize(
    "changes",
    [
        {"share": np.zeros(3)},
        {"critical": np.zeros((13, 13), dtype=np.int16)},
        {"critical": np.zeros((13, 13), dtype=np.int64)},
        {"error": np.array(0.0)},
        {"cells": np.array([{"code": "runs when unpickled"}], dtype=object)},
        {"seal": np.array(["another design", "0" * 64])},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_whole_archive_of_other_content_is_built_again(built, tmp_path, changes):
    table = designed_table(DESIGN)
    (path,) = (tmp_path / "cache" / "sequential").iterdir()
    path.write_bytes(rewritten(path, **changes))
    assert equal(designed_table(DESIGN), table)
    assert built == [DESIGN, DESIGN]


def test_a_table_of_another_design_under_this_name_is_built_again(built, tmp_path):
    other = SequentialDesign(n_max=12, alpha=0.04)
    designed_table(other)
    (wrong,) = (tmp_path / "cache" / "sequential").iterdir()
    table = designed_table(DESIGN)
    (path,) = set((tmp_path / "cache" / "sequential").iterdir()) - {wrong}
    path.write_bytes(wrong.read_bytes())
    assert equal(designed_table(DESIGN), table)
    assert built == [other, DESIGN, DESIGN]


def test_planning_on_the_command_line_designs_a_budget_once(built, capsys):
    asked = ["eval", "power", "--base", ".3", "--variant", ".8", "--sequential"]
    assert cli.main(asked) == 0
    first, count = capsys.readouterr().out, len(built)
    assert count > 0
    assert cli.main(asked) == 0
    assert capsys.readouterr().out == first
    assert len(built) == count
