"""A person starts an ablation in the browser: form, run page, artifacts, lineage.

FOUNDRY_PICTURES=docs/images keeps the pictures that the documentation shows.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from flows.deployment import settings
from flows.prefect.addresses import LOGIN
from foundry_core.lineage import queries
from tests.ui.browser import Browser, chromium

pytestmark = [
    pytest.mark.slow("Prefect's server, its workers and a browser"),
    pytest.mark.timeout(900),
    pytest.mark.skipif(chromium() is None, reason="no Chromium on this machine"),
]
KINDS = Path(__file__).parents[1] / "kinds"
FIELD = """Array.from(document.querySelectorAll('textarea, input, select')).filter(e =>
    e.closest('.p-label') && e.closest('.p-label').innerText.startsWith({name!r}))[0]"""
BUTTON = """Array.from(document.querySelectorAll('button')).filter(b =>
    b.innerText.trim() == {name!r})[{number}]"""


def field(name):
    return FIELD.format(name=name)


def button(name, number=0):
    return BUTTON.format(name=name, number=number)


def choose(page, name, option):
    """In one of Prefect's drop-downs: the keys open a search, the mouse takes what it found."""
    page.run(f"({field(name)}).focus()")
    for key in option:
        page.press(key)
    found = "Array.from(document.querySelectorAll('.p-select-option'))"
    page.click(f"{found}.filter(e => e.innerText.trim() == {option!r})[0]")


def pick(page, name, option):
    """In a drop-down whose list is the browser's own, which no script can open."""
    page.wait(f"!!({field(name)})")
    page.run(f"""(() => {{
        const list = {field(name)};
        Array.from(list.options).find(one => one.text.trim() == {option!r}).selected = true;
        list.dispatchEvent(new Event('change', {{bubbles: true}}));
    }})()""")


class Served:
    """A `foundry serve` of its own, with a home of its own."""

    def __init__(self, home):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.home = home
        self.url = f"http://127.0.0.1:{port}"
        drop = ("PREFECT_API_URL", "PREFECT_HOME")
        kept = {name: value for name, value in os.environ.items() if name not in drop}
        self.log = (home.parent / "serve.log").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "serve", "--port", str(port)],
            env=kept
            | {
                "FOUNDRY_HOME": str(home),
                "FOUNDRY_KINDS": "tests.kinds",
                "FOUNDRY_PIPELINES": str(KINDS),
            },
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )
        self._until(lambda: "ready in" in Path(self.log.name).read_text(), 180, "serve")

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        self.process.wait(60)
        self.log.close()

    @property
    def password(self):
        return (self.home / "serve" / "password").read_text()

    def call(self, method, path, **content):
        """As a page of the UI calls: with the password, and the token it was given. Asked again
        while SQLite is busy (503), as Prefect's own client does."""
        with httpx.Client(base_url=f"{self.url}/api/", timeout=60) as client:
            client.auth = httpx.BasicAuth(*self.password.split(":"))
            token = client.get("csrf-token?client=tests").json()["token"]
            client.headers.update({"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": "tests"})
            for _ in range(10):
                answer = client.request(method, path, **content)
                if answer.status_code != 503:
                    break
                time.sleep(1)
            return answer

    def ask(self, path, **filters):
        return self.call("POST", f"{path}/filter", json=filters).json()

    def deployment(self, name):
        return next(d["id"] for d in self.ask("deployments") if d["name"] == name)

    def flow_run(self, run_id):
        return self.call("GET", f"flow_runs/{run_id}").json()

    def finished(self, run_id, seconds=300):
        def ended():
            return self.flow_run(run_id)["state_type"] in ("COMPLETED", "FAILED", "CRASHED")

        self._until(ended, seconds, f"flow run {run_id}")
        return self.flow_run(run_id)

    def _until(self, true, seconds, what):
        deadline = time.monotonic() + seconds
        while not true():
            if time.monotonic() > deadline or self.process.poll() is not None:
                self.process.kill()
                pytest.fail(f"{what} was not there:\n{Path(self.log.name).read_text()}")
            time.sleep(0.5)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    service = Served(tmp_path_factory.mktemp("ui") / "home")
    yield service
    service.stop()


@pytest.fixture
def pictures(tmp_path):
    return Path(os.environ.get("FOUNDRY_PICTURES", tmp_path))


def test_a_form_filled_in_a_browser_starts_what_was_typed(served, pictures, monkeypatch):
    monkeypatch.setenv("FOUNDRY_KINDS", "tests.kinds")
    monkeypatch.setenv("FOUNDRY_PIPELINES", str(KINDS))
    steps = next(one for one in settings.choices() if one.startswith("model.steps ("))
    with Browser(1400, 1250) as page:
        page.open(f"{served.url}{LOGIN}#{served.password}")
        page.wait("location.pathname != '/foundry-login'")
        page.open(f"{served.url}/deployments/deployment/{served.deployment('ablation')}/run")
        page.click(button("Add item"))
        choose(page, "pipeline", "exams")
        pick(page, "Path", steps)
        page.replace(field("Values"), "10, 20")
        page.replace(field("seeds"), "2")
        page.picture(pictures / "ablation-form.png")
        page.click(button("Submit"))
        link = "document.querySelector('a[href*=\"flow-run/\"]')"
        run_id = page.wait(f"({link} || {{}}).href || ''").rpartition("/")[2].partition("?")[0]

        run = served.flow_run(run_id)
        typed = {name: run["parameters"][name] for name in ("pipeline", "vary", "seeds")}
        assert typed == {
            "pipeline": "exams",
            "vary": [{"path": steps, "values": "10, 20"}],
            "seeds": 2,
        }
        run = served.finished(run_id)
        assert run["state_type"] == "COMPLETED", run["state"]["message"]
        assert run["name"] == "ablation model.steps ×2; seeds ×2"
        assert {"pipeline:exams", "ablation"} <= set(run["tags"])
        _look_at_the_run(page, served, run_id, pictures)

    trainings = [r for r in served.ask("flow_runs") if "train" in r["tags"]]
    assert len(trainings) == 6
    assert {r["work_pool_name"] for r in trainings} == {"gpu-pool"}
    connection = queries.connect(served.home)
    (whole,) = [r for r in queries.sql(connection, "from pipeline_run") if r["parent"] is None]
    assert whole["job_ref"] == f"prefect:flow-run/{run_id}"
    (ablation,) = queries.sql(connection, "from ablation")
    assert ablation["status"] == "succeeded"
    assert f"ablation:{ablation['ablation_id']}" in run["tags"]


def _look_at_the_run(page, served, run_id, pictures):
    """The page of the run and of its artifacts, as the server keeps and the browser shows them."""
    page.open(f"{served.url}/runs/flow-run/{run_id}")
    # The page loads its log piece by piece, as one scrolls down.
    down = "document.querySelectorAll('*').forEach(e => { e.scrollTop = e.scrollHeight })"
    page.wait(f"({down}, document.body.innerText.includes('verdict: done in'))")
    time.sleep(4)
    page.picture(pictures / "ablation-run.png")
    tabs = "Array.from(document.querySelectorAll('button, a, li, span'))"
    page.click(f"{tabs}.filter(e => e.innerText.trim() == 'Artifacts').pop()")
    page.wait("/verdict/i.test(document.body.innerText)")
    time.sleep(2)
    page.picture(pictures / "ablation-artifacts.png")
    kept = {a["key"]: a for a in served.ask("artifacts") if a["flow_run_id"] == run_id}
    assert {"plan", "run", "verdict", "report", "results-verdict"} <= kept.keys()
    for key, words in (("plan", "steps=20/1"), ("verdict", "worse than the base")):
        page.open(f"{served.url}/artifacts/artifact/{kept[key]['id']}")
        page.wait(f"document.body.innerText.includes({words!r})")
        page.picture(pictures / f"ablation-{key}.png")
    page.open(f"{served.url}/artifacts/artifact/{kept['results-verdict']['id']}")
    drawn = "Array.from(document.images).some(i => i.src.startsWith('data:') && i.naturalWidth > 0)"
    page.wait(drawn)
    page.picture(pictures / "ablation-results.png")
    _look_at_the_verdict(page, served, kept["verdict"]["id"])
    _look_at_the_live_page(page, served, kept["run"]["data"])
    _look_at_the_report(page, served, kept["report"]["data"])


def _look_at_the_verdict(page, served, artifact):
    """Every column of the table is on a page of 1400 pixels."""
    page.open(f"{served.url}/artifacts/artifact/{artifact}")
    page.wait("document.body.innerText.includes('letters')")
    right = "getBoundingClientRect().right"
    inside = f"""Array.from(document.querySelectorAll('th')).every(cell =>
        cell.{right} <= document.querySelector('table').parentElement.{right} + 1)"""
    assert page.run(inside)


def _look_at_the_live_page(page, served, link):
    """Of the same server, with the password that Prefect's pages have."""
    (path,) = re.findall(r"\]\((/foundry-run/[^)]+)\)", link)
    page.open(served.url + path)
    page.wait("document.querySelector('#facts .status')?.innerText == 'succeeded'")
    assert page.run("document.querySelectorAll('#stages > li').length") > 6
    page.wait("!!document.querySelector('a[href^=\"/foundry-report/\"]')")
    page.wait("document.body.innerText.includes('What changed')")


def _look_at_the_report(page, served, link):
    """By http, in a frame without scripts, for who has logged in."""
    (path,) = re.findall(r"\]\((/foundry-report/[^)]+)\)", link)
    page.open(served.url + path)
    page.wait("!!document.querySelector('iframe')")
    assert page.run("document.querySelector('iframe').getAttribute('sandbox')") == ""
    back = page.run("document.querySelector('nav a').getAttribute('href')")
    assert back == path.replace("report", "run", 1)
    assert "Ask further" in page.run("document.querySelector('iframe').srcdoc")
    page.run("localStorage.clear()")
    page.open(served.url + path)
    page.wait("document.body.innerText.includes('password')")
    assert page.run("document.querySelector('iframe')") is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"pipeline": "exmas"},
        {"vary": [{"path": "model.steps", "value": "1"}]},
        {"seeds": 0},
        {"overrides": [{"path": "model.steps", "value": "1", "more": 1}]},
    ],
)
def test_parameters_that_cannot_be_are_refused_by_the_server(served, wrong):
    path = f"deployments/{served.deployment('ablation')}/create_flow_run"
    answer = served.call("POST", path, json={"parameters": wrong})
    assert answer.status_code in (409, 422), answer.text
    assert "alidation" in json.dumps(answer.json())


def test_a_path_that_does_not_exist_fails_before_anything_runs(served):
    path = f"deployments/{served.deployment('full')}/create_flow_run"
    wrong = {"pipeline": "exams", "overrides": [{"path": "model.stepz", "value": "3"}]}
    answer = served.call("POST", path, json={"parameters": wrong})
    assert answer.status_code == 201, answer.text
    run_id = answer.json()["id"]
    run = served.finished(run_id)
    assert run["state_type"] == "FAILED"
    assert "model.stepz" in run["state"]["message"]
    assert "did you mean 'steps'?" in run["state"]["message"]
