"""Reports by http: who may read one, what else the address can be made to give, what it may do."""

import asyncio
import base64
import hashlib
import os
import re

import pytest

from flows.prefect.addresses import LOGIN, REPORTS, report_page
from flows.prefect.pages import Pages

PASSWORD = "foundry:secret"
RUN = "20261127T082919-exams-ablation-df6a7d"


@pytest.fixture
def runs(tmp_path):
    for name in (RUN, "steps=20.0,a+b"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "report.html").write_text(f"<p>{name}")
    (tmp_path / "runs" / RUN / "logs").write_text("private")
    (tmp_path / "report.html").write_text("outside")
    return tmp_path / "runs"


def asked(runs, path, password=PASSWORD, server=PASSWORD, method="GET", headers=()):
    """(status, headers, body); None where Prefect's application is asked."""
    sent, passed = [], []

    async def app(scope, receive, send):
        passed.append(scope)

    async def send(message):
        sent.append(message)

    given = [(b"host", b"localhost"), *headers]
    if password is not None:
        given.append((b"authorization", b"Basic " + base64.b64encode(password.encode())))
    scope = {"type": "http", "path": path, "method": method, "headers": given}
    asyncio.run(Pages(app, runs, server)(scope, None, send))
    if passed:
        return None
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]


def test_the_report_is_for_who_knows_the_password(runs):
    path = f"{report_page(RUN)}/report.html"
    status, headers, body = asked(runs, path)
    assert (status, body) == (200, f"<p>{RUN}".encode())
    assert asked(runs, report_page("steps=20.0,a+b") + "/report.html")[0] == 200
    for wrong in (None, "foundry:", "foundry:secreT", "", "foundry:secret2"):
        status, headers, body = asked(runs, path, password=wrong)
        assert status == 401 and RUN.encode() not in body
        assert headers[b"www-authenticate"].startswith(b"Basic ")
    twice = [(b"authorization", b"Basic " + base64.b64encode(PASSWORD.encode()))]
    assert asked(runs, path, headers=twice)[0] == 401
    assert asked(runs, path, password=None, server="")[0] == 200


@pytest.mark.parametrize(
    "run",
    [
        "..", ".", "../..", f"{RUN}/..", f"{RUN}/../{RUN}", f"{RUN}/logs", f"{RUN}//report.html",
        f"../runs/{RUN}", f"{RUN}\\..", "", "/", f"{RUN}\0", "a" * 300, f"{RUN}\n", "%2e%2e",
    ],
)  # fmt: skip
def test_no_address_leads_elsewhere(runs, run):
    for path in (f"{REPORTS}{run}/report.html", f"{REPORTS}{run}"):
        found = asked(runs, path)
        if found is not None and path != f"{REPORTS}{RUN}":
            assert found[0] == 404
            assert b"outside" not in found[2] and b"private" not in found[2]


def test_links_lead_nowhere(runs, tmp_path):
    (runs / "linked").mkdir()
    (runs / "linked" / "report.html").symlink_to(tmp_path / "report.html")
    (runs / "folder").symlink_to(runs / RUN)
    for name in ("linked", "folder", "absent"):
        assert asked(runs, f"{REPORTS}{name}/report.html")[0] == 404
    os.mkfifo(runs / "linked" / "pipe")


def test_a_report_may_run_and_load_nothing(runs):
    _, headers, _ = asked(runs, f"{report_page(RUN)}/report.html")
    policy = headers[b"content-security-policy"].decode()
    assert policy.startswith("sandbox; default-src 'none'")
    assert "script-src" not in policy and "connect-src" not in policy
    for name, value in (
        (b"x-content-type-options", b"nosniff"),
        (b"x-frame-options", b"DENY"),
        (b"referrer-policy", b"no-referrer"),
        (b"cache-control", b"no-store"),
        (b"content-type", b"text/html; charset=utf-8"),
    ):
        assert headers[name] == value


@pytest.mark.parametrize("path", [LOGIN, report_page(RUN)])
def test_pages_hold_nothing_and_run_their_own_script_alone(runs, path):
    status, headers, body = asked(runs, path, password=None)
    assert status == 200 and b"secret" not in body and RUN.encode() not in body
    (script,) = re.findall(rb"<script>(.*)</script>", body, re.DOTALL)
    known = base64.b64encode(hashlib.sha256(script).digest()).decode()
    assert f"script-src 'sha256-{known}';" in headers[b"content-security-policy"].decode()


def test_the_login_page_keeps_what_stands_behind_the_hash(runs):
    _, _, body = asked(runs, LOGIN, password=None)
    for word in (
        b"prefect-password",
        b"btoa(",
        b"location.hash",
        b'location.replace("/foundry-runs")',
    ):
        assert word in body


def test_everything_else_is_prefects_and_pages_are_only_read(runs):
    assert asked(runs, "/api/health") is None
    assert asked(runs, "/foundry-reporter") is None
    assert asked(runs, report_page(RUN), method="POST")[0] == 405
    assert asked(runs, f"{report_page(RUN)}/report.html", method="DELETE")[0] == 405
