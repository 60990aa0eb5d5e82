"""Which flow runs a worker of ours starts."""

from types import SimpleNamespace

import pytest

from flows.deployment.deployments import job_variables
from flows.prefect.worker import refusal

DECLARED = job_variables()


def asked(**changes):
    """Why a run of foundry/full is refused that differs so from what is declared."""
    own = {"entrypoint": "flows.foundry.full", "job_variables": {}, "pull_steps": None}
    own |= {"storage_document_id": None, "path": None}
    of_run = changes.pop("run", {})
    return refusal(
        SimpleNamespace(job_variables=of_run), SimpleNamespace(**own | changes), DECLARED
    )


def test_what_is_declared_is_started():
    assert asked() == ""
    assert asked(run=None) == ""
    assert asked(job_variables=DECLARED["flows.foundry.full"]) == ""  # by `prefect deploy`


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"run": {"command": "id"}}, "flow run sets job variables (command)"),
        ({"job_variables": {"env": {"A": "b"}}}, "deployment sets job variables (env)"),
        ({"job_variables": {"command": "id"}}, "deployment sets job variables (command)"),
        ({"entrypoint": "os.system"}, "'os.system' is none of Foundry's"),
        ({"entrypoint": None}, "none of Foundry's"),
        ({"pull_steps": [{"prefect.deployments.steps.run_shell_script": {}}]}, "fetches code"),
        ({"path": "/tmp"}, "fetches code"),
        ({"storage_document_id": "1"}, "fetches code"),
    ],
)
def test_everything_else_is_refused(changes, words):
    assert words in asked(**changes)


def test_a_run_of_no_deployment_is_refused():
    assert "no deployment" in refusal(SimpleNamespace(job_variables={}), None, DECLARED)
