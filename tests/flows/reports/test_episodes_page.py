"""episodes.html: failures first, videos beside the page, and what a reader can filter."""

import json
import re
import time

import numpy as np
import pytest

from flows.reports import episodes_page
from flows.reports.episodes_page import write_episodes_page
from foundry_core.errors import FoundryError
from foundry_core.evaluation.rollout.video import encode_video
from foundry_core.files import sha256_hex
from tests.release.kept import Kept
from tests.ui.browser import Browser, chromium


def frames(shade: int) -> list[np.ndarray]:
    picture = np.zeros((48, 64, 3), np.uint8)
    pictures = []
    for step in range(12):
        one = picture.copy()
        one[10:30, 4 * step : 4 * step + 12] = (shade, 90, 255 - shade)
        pictures.append(one)
    return pictures


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run with two policies that met the same scenarios, and a control that recorded nothing."""
    store = Kept(tmp_path / "store")

    def evaluation(name, *videos):
        for place, shade in videos:
            folder = store.folder("evaluate", name)
            (folder / "records/videos" / place).parent.mkdir(parents=True, exist_ok=True)
            (folder / "records/videos" / place).write_bytes(encode_video(frames(shade), 10))
        return store.add("evaluate", name=name)

    store.run(
        "r1",
        # What a run's record calls a stage comes from the store, and is no place to write to.
        **{
            "../../../ours": evaluation(
                "ours",
                ("push/000000_success.mp4", 40),
                ("push/000003_failure.mp4", 90),
                ("pull/000001_success.mp4", 140),
            )
        },
        theirs=evaluation("theirs", ("push/000000_failure.mp4", 200)),
        still=store.add("evaluate_control"),
    )
    store.run("r2", still=store.add("evaluate_control"))
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(episodes_page, "open_store", lambda uri: store)
    return tmp_path / "home/runs/r1"


OURS, THEIRS = (f"episodes/{sha256_hex(f'evaluate {n}')[:12]}" for n in ("ours", "theirs"))


def cards(page: str) -> list[tuple[str, str]]:
    """(outcome, file) in the order of the page."""
    return re.findall(r'data-outcome="(\w+)".*?data-src="([^"]+)"', page)


def test_failures_come_first_and_every_video_lies_beside_the_page(run):
    page = write_episodes_page("r1")
    assert page == run / "episodes.html"
    shown = cards(page.read_text())
    assert shown == [
        ("failure", f"{THEIRS}/push/000000_failure.mp4"),
        ("failure", f"{OURS}/push/000003_failure.mp4"),
        ("success", f"{OURS}/pull/000001_success.mp4"),
        ("success", f"{OURS}/push/000000_success.mp4"),
    ]
    assert all((run / file).read_bytes()[4:8] == b"ftyp" for _, file in shown)
    assert "4 recorded episodes, 2 of them failures" in page.read_text()
    assert "../../../ours" in page.read_text()
    beside = {path.name for path in (run / "episodes").iterdir()}
    assert beside == {OURS.rpartition("/")[2], THEIRS.rpartition("/")[2]}
    for task in ("pull", "push"):
        assert f"<option>{task}</option>" in page.read_text()


def test_one_task_alone(run):
    assert [file for _, file in cards(write_episodes_page("r1", ["pull"]).read_text())] == [
        f"{OURS}/pull/000001_success.mp4"
    ]
    with pytest.raises(FoundryError, match="no videos of these tasks"):
        write_episodes_page("r1", ["fly"])


def test_a_run_that_recorded_nothing_is_told_how(run):
    with pytest.raises(FoundryError, match="run r2 has no videos") as refused:
        write_episodes_page("r2")
    assert "record_failures" in refused.value.hint


SHOWN = """[...document.querySelectorAll('#episodes figure')].filter(e => e.offsetParent !== null)
    .map(e => e.querySelector('figcaption').innerText.split(', ')[0].replace('\\n', ' ')
        + ' ' + JSON.parse(e.dataset.key)[1])"""


def choose(browser: Browser, select: str, first_letter: str) -> None:
    """As somebody without a mouse does."""
    time.sleep(1.2)  # a list forgets by then what was typed before
    browser.run(f"document.getElementById('{select}').focus()")
    browser.press(first_letter)


@pytest.mark.slow("a browser")
@pytest.mark.timeout(300)
@pytest.mark.skipif(chromium() is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("width", [1400, 400])
def test_a_reader_filters_and_orders_by_keyboard_and_videos_play(run, width):
    page = write_episodes_page("r1")
    with Browser(width=width) as browser:
        browser.open(page.as_uri())
        failures_first = ["failure push 0", "failure push 3", "success pull 1", "success push 0"]
        assert browser.run(SHOWN) == failures_first
        browser.wait("[...document.querySelectorAll('video')].some(v => v.currentTime > 0)")
        assert browser.run("document.documentElement.scrollWidth <= innerWidth")
        choose(browser, "order", "s")
        side_by_side = ["success pull 1", "success push 0", "failure push 0", "failure push 3"]
        browser.wait(f"({SHOWN}).join() == {json.dumps(','.join(side_by_side))}")
        choose(browser, "order", "f")
        choose(browser, "stage", "t")
        browser.wait(f"({SHOWN}).join() == 'failure push 0'")
        choose(browser, "outcome", "s")
        browser.wait(f"({SHOWN}).length == 0")
        assert "No episode is left." in browser.run("document.body.innerText")
        choose(browser, "stage", "a")
        choose(browser, "task", "p")
        browser.wait(f"({SHOWN}).join() == 'success pull 1'")
        choose(browser, "task", "a")
        choose(browser, "outcome", "a")
        browser.wait(f"({SHOWN}).length == 4")
        assert browser.run(SHOWN) == failures_first
