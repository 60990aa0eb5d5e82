"""A person watches a run in the browser: from its plan to its verdict, by keyboard, at any width.

FOUNDRY_PICTURES=docs/images keeps the picture that the documentation shows.
"""

import os
import subprocess
import time
from pathlib import Path

import pytest

from foundry_core.execution.python import python_command
from tests.orchestration import REPOSITORY
from tests.ui.browser import Browser, chromium
from tests.ui.pages import PagesServer

pytestmark = [
    pytest.mark.slow("a run, a server and a browser"),
    pytest.mark.timeout(900),
    pytest.mark.skipif(chromium() is None, reason="no Chromium on this machine"),
]
STAGES = """Object.fromEntries([...document.querySelectorAll('#stages > li')].map(e =>
    [e.querySelector('.name').innerText, e.querySelector('.state').innerText]))"""
TEXT = "document.body.innerText"
DRAWN = """[...document.querySelectorAll('#curves .curve svg')].map(e =>
    e.getAttribute('aria-label'))"""
BAR = """Number((document.querySelector('.s-runs [role=progressbar]') ||
    {ariaValueNow: 101}).ariaValueNow)"""
OUTCOMES = "[...document.querySelectorAll('#rollouts figure')].map(e => e.className).join(' ')"
SEEN = "[...document.querySelectorAll('.pictures img')].filter(i => i.naturalWidth > 0).length"
EVIL = "<img src=x onerror='window.taken=1'><script>window.taken=1</script>"


class Run:
    """`foundry run watched` of this home, beside the test."""

    def __init__(self, folder, *overrides):
        self.log = (folder / "run.log").open("w+")
        words = [word for one in overrides for word in ("-o", one)]
        self.process = subprocess.Popen(
            [*python_command("flows.cli"), "run", "watched", *words],
            stdout=self.log,
            stderr=subprocess.STDOUT,
            cwd=REPOSITORY,
        )

    def ended(self):
        code = self.process.wait(300)
        self.log.seek(0)
        return code, self.log.read()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """One home for the file: what was built once is reused."""
    folder = tmp_path_factory.mktemp("watched")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOUNDRY_HOME", str(folder / "home"))
        patch.setenv("FOUNDRY_KINDS", "tests.watched")
        patch.setenv("FOUNDRY_PIPELINES", str(REPOSITORY / "tests" / "watched"))
        patch.setenv("PYTHONPATH", str(REPOSITORY))
        for name in ("FOUNDRY_STORE", "PREFECT_API_URL"):
            patch.delenv(name, raising=False)
        (folder / "home").mkdir()
        with PagesServer() as pages:
            yield folder, pages


@pytest.fixture
def pictures(tmp_path):
    return Path(os.environ.get("FOUNDRY_PICTURES", tmp_path))


def log_in(page, pages):
    page.open(pages.login)
    page.wait("location.pathname == '/foundry-runs' && !!localStorage.getItem('prefect-password')")


def fits(page):
    """Nothing is wider than the page."""
    return page.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def tab_to(page, found, most=60):
    """Presses Tab until the element that has the focus fulfils a JavaScript expression of `e`."""
    for _ in range(most):
        page.key("Tab")
        if page.run(f"(e => !!({found}))(document.activeElement)"):
            return
    pytest.fail(f"Tab did not come to {found}")


def whole(page, path, width):
    """A picture of all of the page."""
    page.resize(width, min(6000, page.run("document.documentElement.scrollHeight")))
    time.sleep(1.5)
    page.picture(path)
    page.resize(width, 1000)


def test_a_run_is_watched_from_its_start_to_its_end(place, pictures, tmp_path):
    folder, pages = place
    with Browser(1400, 1000) as page:
        log_in(page, pages)
        page.open(f"{pages.url}/foundry-runs")
        page.wait(f"{TEXT}.includes('Nothing has run here yet')")
        run = Run(folder, "model.seconds=25", "exam_short.seconds=15")
        page.wait("document.querySelectorAll('#runs li').length == 1", seconds=120)
        tab_to(page, "e.closest('#runs')")
        page.key("Enter")
        page.wait("location.pathname.startsWith('/foundry-run/')")
        page.run("window.sameAll = true")
        page.wait(f"{STAGES}.model == 'runs' && {DRAWN}.length > 0", seconds=120)
        before = page.run(BAR)
        first = page.run(f"{DRAWN}[0]")
        page.wait(f"{DRAWN}[0] != {first!r}")
        assert "live" in page.run("document.querySelector('#curves figcaption').innerText")
        page.wait(f"{BAR} > {before}")
        page.wait("/ left/.test(document.querySelector('#stages').innerText)")
        page.wait("document.querySelectorAll('#rollouts video').length > 0", seconds=120)
        page.resize(1400, 1500)
        page.picture(pictures / "run-page.png")
        page.resize(1400, 1000)
        page.wait(f"{STAGES}.verdict == 'done'", seconds=200)
        page.wait(f"{TEXT}.includes('not separated')")
        page.wait("document.querySelector('#facts .status')?.innerText == 'succeeded'")
        assert page.run("window.sameAll")  # nobody loaded it again
        page.wait(f"{OUTCOMES} == '{' '.join(['failure'] * 6 + ['success'] * 6)}'")
        page.run("document.querySelector('#rollouts video').scrollIntoView()")
        page.wait("document.querySelector('#rollouts video').readyState >= 2")
        page.run("document.querySelector('.drawn').scrollIntoView()")
        page.wait("document.querySelector('.drawn img').naturalWidth > 0")
        heard = page.run("document.querySelector('#said').textContent")
        assert "verdict: done" in heard or "succeeded" in heard
        for scheme in ("light", "dark"):
            page.scheme(scheme)
            for width in (1400, 400):
                page.resize(width, 1000)
                assert fits(page), (scheme, width)
                whole(page, tmp_path / f"run-{width}-{scheme}.png", width)
    code, said = run.ended()
    assert code == 0, said


def test_a_person_without_a_mouse_follows_the_lineage(place, tmp_path):
    folder, pages = place
    code, said = Run(folder, "model.seconds=25", "exam_short.seconds=15").ended()
    assert code == 0, said
    with Browser(400, 1000) as page:
        log_in(page, pages)
        page.open(f"{pages.url}/foundry-runs")
        page.wait("document.querySelectorAll('#runs li').length >= 1")
        tab_to(page, "e.id == 'words'")
        page.type("watched model")
        page.wait("document.querySelectorAll('#runs li').length >= 1")
        tab_to(page, "e.closest('#runs')")
        page.key("Enter")
        page.wait("document.querySelector('#facts .status')?.innerText == 'succeeded'")
        page.wait("document.querySelectorAll('#graph .fl-node').length == 6")
        tab_to(page, "e.innerText == 'Lineage'")
        page.key("Enter")
        ring = "getComputedStyle(document.activeElement.querySelector('rect')).strokeWidth"
        tab_to(page, "e.dataset.name == 'model'")
        assert page.run(ring) == "3.5px"
        page.key("Enter")
        page.wait("document.querySelectorAll('#artifact dl').length > 0")
        assert page.run("document.activeElement.tagName") == "H2"
        assert "model " in page.run("document.activeElement.innerText")
        assert "steps" in page.run("document.querySelector('#artifact').textContent")
        tab_to(page, "e.closest('#artifact') && e.classList.contains('key-link')")
        page.key("Enter")
        page.wait("document.querySelector('#artifact h2')?.innerText?.startsWith('pictures')")
        tab_to(page, "e.tagName == 'BUTTON' && e.innerText == 'Look into it'")
        page.key("Enter")
        page.wait(f"{SEEN} == 2", seconds=120)
        assert fits(page)
        whole(page, tmp_path / "artifact-400.png", 400)
        page.run("document.querySelector('#words').focus()")
        page.type("play")
        page.wait("document.querySelectorAll('#results a').length == 2")
        tab_to(page, "e.closest('#results')")
        page.key("Enter")
        page.wait("document.querySelector('#artifact h2')?.innerText?.startsWith('exam')")
        page.run("history.back()")
        page.wait("document.querySelector('#artifact h2')?.innerText?.startsWith('pictures')")


def test_a_run_that_fails_says_why_and_runs_nothing_of_what_it_says(place, tmp_path):
    folder, pages = place
    code, said = Run(folder, "short.fail_at=3", f"short.says={EVIL}").ended()
    assert code == 1, said
    with Browser(1400, 1000) as page:
        log_in(page, pages)
        page.open(f"{pages.url}/foundry-runs")
        page.wait("document.querySelector('#runs li')?.classList.contains('s-failed')")
        page.open(page.run("document.querySelector('#runs a').href"))
        page.wait(f"{STAGES}.short == 'failed'")
        found = page.run(STAGES)
        assert found["exam_short"] == found["verdict"] == "not reached", found
        assert {found["model"], found["exam"]} <= {"done", "reused"}, found
        error = page.run("document.querySelector('.s-failed .why').innerText")
        assert f"ValueError: {EVIL}" in error
        assert page.run("window.taken") is None
        assert page.run("document.querySelectorAll('#stages img, #stages script').length") == 0
        assert fits(page)
        whole(page, tmp_path / "failed.png", 1400)
        page.run("localStorage.clear()")
        page.open(page.run("location.href"))
        page.wait("document.querySelector('#problem')?.innerText?.includes('password')")
        assert page.run("document.querySelectorAll('#stages li').length") == 0
