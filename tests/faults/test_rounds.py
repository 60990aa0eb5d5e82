"""A few fault rounds (`make faults` runs hundreds), and the checker: it must see violations."""

import json

import pytest

from tests.faults import checks
from tests.faults.rounds import run_rounds
from tests.runs import run


@pytest.mark.parametrize(
    "rounds", [1, pytest.param(6, marks=pytest.mark.slow("kills and repeats whole runs"))]
)
def test_a_few_rounds_on_a_local_store(rounds):
    tally = run_rounds(rounds=rounds, seed=4)
    assert tally.violations == []
    assert sum(n for name, n in tally.counts.items() if name.startswith("killed")) == rounds
    assert tally.counts["results compared byte for byte"] > 0


@pytest.mark.slow("kills and repeats whole runs")
@pytest.mark.timeout(1200)
def test_a_few_rounds_on_s3_behind_a_faulty_network():
    pytest.importorskip("moto")
    tally = run_rounds(rounds=4, seed=4, store="s3")
    assert tally.violations == []
    assert tally.counts["requests: error"] > 0


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FOUNDRY_KINDS", "tests.kinds")
    return tmp_path / "home"


def test_the_checker_sees_half_artifacts_and_what_lineage_lacks(home, tmp_path):
    _, done = run()
    view = checks.LocalView(home / "store")
    artifact = done.artifact("first")
    folder = home / "store" / "emit" / artifact.key
    assert view.damage() == {}
    assert checks.lineage_differences(home, str(home / "store" / "events"), tmp_path) == []
    (folder / "text.txt").write_text("one")
    assert view.damage() == {("emit", artifact.key): "text.txt is not what was committed"}
    (folder / "text.txt").unlink()
    assert view.damage() == {("emit", artifact.key): "text.txt is missing"}
    (folder / "artifact.json").unlink()
    assert "without a readable artifact.json" in view.damage()["emit", artifact.key]
    keys = {done.artifact(name).key for name in ("second", "model", "total")}
    index = home / "lineage.duckdb"
    assert checks.unlisted(index, keys) == [f"{artifact.key[:12]} is in lineage only"]
    assert checks.unlisted(index, keys | {artifact.key, "ab" * 32}) == [
        f"{'ab' * 6} is not in lineage"
    ]
    for path in (home / "store" / "events").glob("2*/*.json"):
        if json.loads(path.read_text())["type"] == "artifact_committed":
            path.unlink()
    found = checks.lineage_differences(home, str(home / "store" / "events"), tmp_path)
    assert any(text.startswith("artifact:") for text in found)
