"""Attacks on the server of `foundry serve`: by pages of other sites in a browser of this machine,
by who does not know the password, and by who does and wants more than to start a run."""

import http.client
import json

import pytest

from tests.orchestration import Serving, until

pytestmark = pytest.mark.timeout(600)
EVIL = "touch {mark}"


@pytest.fixture(scope="module")
def serving(tmp_path_factory):
    with Serving(tmp_path_factory.mktemp("attacked") / "home") as started:
        yield started


def ask(serving, path, body=None, *, drop=(), **headers):
    """(status, text) of a request that is in order but for `headers`, and for those dropped."""
    known = {k: v for k, v in serving.headers().items() if k not in drop}
    connection = http.client.HTTPConnection("127.0.0.1", serving.port, timeout=60)
    sent = known | {name.replace("_", "-"): value for name, value in headers.items()}
    method = "GET" if body is None else "POST"
    connection.request(method, f"/api{path}", body and json.dumps(body), sent)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text, answer.headers


def deployment(serving, name="full"):
    return serving.api(f"/deployments/name/foundry/{name}")


def test_the_password_is_its_owners_alone(serving):
    mode = (serving.home / "serve" / "password").stat().st_mode
    assert mode & 0o777 == 0o600
    assert len(serving.password) > 30
    assert serving.password not in serving.log.read_text()


def test_a_page_of_another_site_starts_nothing(serving):
    """A form or fetch() of any page may send this without a question from the browser."""
    path = f"/deployments/{deployment(serving)['id']}/create_flow_run"
    before = serving.api("/flow_runs/count", {})
    for origin in ("https://evil.example", "null", f"http://127.0.0.1:{serving.port + 1}"):
        simple = {"Origin": origin, "Content_Type": "text/plain"}
        status, text, _ = ask(serving, path, {}, **simple)
        assert (status, "another site" in text) == (403, True)
        assert ask(serving, path, {}, Origin=origin)[0] == 403
    assert serving.api("/flow_runs/count", {}) == before


def test_a_page_of_another_site_reads_nothing(serving):
    status, _, headers = ask(serving, "/admin/version", Origin="https://evil.example")
    assert status == 403
    assert "access-control-allow-origin" not in headers
    own = f"http://127.0.0.1:{serving.port}"
    assert ask(serving, "/admin/version", Origin=own)[0] == 200


def test_a_name_that_was_made_to_resolve_to_this_machine_is_refused(serving):
    for host in ("evil.example", f"evil.example:{serving.port}", "127.0.0.1.evil.example", ""):
        status, text, _ = ask(serving, "/admin/version", Host=host)
        assert (status, "(Host)" in text) == (403, True), host
    assert ask(serving, "/admin/version", Host=f"localhost:{serving.port}")[0] == 200


@pytest.mark.parametrize("path", ["/flow_runs/filter", "/work_pools/filter", "/variables/filter"])
def test_without_the_password_nothing_is_told(serving, path):
    assert ask(serving, path, {}, drop=["Authorization"])[0] == 401
    assert ask(serving, path, {}, Authorization="Basic Zm91bmRyeTphYmM=")[0] == 401
    assert ask(serving, path, {})[0] == 200


def test_without_the_token_of_a_page_nothing_is_changed(serving):
    assert ask(serving, "/flow_runs/filter", {}, drop=["Prefect-Csrf-Token"])[0] == 403


@pytest.mark.parametrize("name", ["command", "env", "working_dir", "image", "env.PATH"])
def test_job_variables_are_refused_by_the_server(serving, name, tmp_path):
    value = {"PATH": "/tmp"} if name == "env" else EVIL.format(mark=tmp_path / "mark")
    one = deployment(serving)
    body = {"job_variables": {name: value}}
    status, text, _ = ask(serving, f"/deployments/{one['id']}/create_flow_run", body)
    assert status in (409, 422), text
    mine = {"flow_id": one["flow_id"], "name": "mine", "work_pool_name": "foundry", **body}
    status, text, _ = ask(serving, "/deployments/", mine)
    assert status in (409, 422), text


def put(serving, path, body):
    connection = http.client.HTTPConnection("127.0.0.1", serving.port, timeout=60)
    connection.request("PATCH", f"/api{path}", json.dumps(body), serving.headers())
    status = connection.getresponse().status
    connection.close()
    return status


def test_who_opens_the_template_first_is_refused_by_the_worker(serving, tmp_path):
    """With the password the pool's template can be changed; the worker does not read it."""
    one, mark = deployment(serving), tmp_path / "mark"
    command = EVIL.format(mark=mark)
    open_template = {
        "job_configuration": {"command": "{{ command }}"},
        "variables": {"type": "object", "properties": {"command": {"type": "string"}}},
    }
    before = serving.api("/work_pools/foundry")["base_job_template"]
    assert put(serving, "/work_pools/foundry", {"base_job_template": open_template}) == 204
    try:
        path = f"/deployments/{one['id']}/create_flow_run"
        ordered = {"job_variables": {"command": command}, "state": {"type": "SCHEDULED"}}
        foreign = {
            "flow_id": one["flow_id"],
            "name": "foreign",
            "work_pool_name": "foundry",
            "entrypoint": f"{tmp_path}/evil.py:flow",
            "pull_steps": [{"prefect.deployments.steps.run_shell_script": {"script": command}}],
        }
        theirs = serving.api("/deployments/", foreign)["id"]
        again = {**foreign, "name": "again", "entrypoint": one["entrypoint"]}
        fetching = serving.api("/deployments/", again)["id"]
        scheduled = {"state": {"type": "SCHEDULED"}}
        runs = {
            serving.api(path, ordered)["id"]: "the flow run sets job variables (command)",
            serving.api(f"/deployments/{theirs}/create_flow_run", scheduled)["id"]: "entrypoint",
            serving.api(f"/deployments/{fetching}/create_flow_run", scheduled)[
                "id"
            ]: "fetches code",
        }
        for run, why in runs.items():
            assert serving.ended(run) == "CRASHED"
            message = serving.run(run)["state"]["message"]
            assert "refused" in message and why in message
        assert not mark.exists()
        fixed = {"job_configuration": {"command": command}, "variables": {"type": "object"}}
        assert put(serving, "/work_pools/foundry", {"base_job_template": fixed}) == 204
        ordinary = serving.submit("foundry/full", pipeline="exams", dry_run=True)
        assert serving.ended(ordinary) == "COMPLETED"
        assert not mark.exists()
    finally:
        put(serving, "/work_pools/foundry", {"base_job_template": before})


def test_the_ordinary_way_works(serving):
    done = serving.prefect(
        *("deployment", "run", "foundry/full", "-p", "pipeline=exams", "-p", "dry_run=true")
    )
    assert done.returncode == 0, done.stdout + done.stderr
    until(lambda: not serving.flow_runs(), 120, "it ended")
    assert serving.foundry("status").returncode == 0
    assert serving.foundry("serve", "--check", "--port", str(serving.port)).returncode == 0
