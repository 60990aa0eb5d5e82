"""The round with Prefect's server on PostgreSQL, as a team would run it."""

import pytest

from tests.orchestration import Serving
from tests.postgres import postgres

pytestmark = [
    pytest.mark.slow("PostgreSQL, Prefect's server and workers"),
    pytest.mark.timeout(900),
]


@pytest.fixture(scope="module")
def serving(tmp_path_factory):
    home = tmp_path_factory.mktemp("postgres") / "home"
    with (
        postgres() as url,
        Serving(home, settings={"PREFECT_SERVER_DATABASE_CONNECTION_URL": url}) as started,
    ):
        yield started


def test_a_run_and_an_ablation_through_the_pools(serving):
    run = serving.submit("foundry/full", pipeline="exams")
    assert serving.ended(run, 300) == "COMPLETED"
    vary = [{"path": "model.rate", "values": "0.9"}]
    ablation = serving.submit("foundry/ablation", pipeline="exams", vary=vary)
    assert serving.ended(ablation, 300) == "COMPLETED"
    assert len(serving.trainings("COMPLETED")) == 2
    rows = serving.lineage("select variant, decision from ablation_effects")
    assert {row["variant"]: row["decision"] for row in rows}[
        "rate=0.9"
    ] == "worse than the base (these policies)"


def test_nothing_was_written_to_sqlite(serving):
    assert not list((serving.home / "prefect").glob("*.db"))
