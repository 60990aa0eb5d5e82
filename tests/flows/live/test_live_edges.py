"""The edges of the live pages: who is told, what no address can be made to give, what a page may do
that shows names and texts of anybody."""

import base64
import hashlib
import json
import os
import re

import pytest
from live_home import PASSWORD, RUN, toy

from flows.live import sample
from flows.live.runs import _whole_words
from foundry_core.home import home_dir
from tests.lineage.history import digest, stage
from tests.synthetic import make_captions

SHELLS = ["/foundry-runs", f"/foundry-run/{RUN}"]
EVIL = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"


def test_only_who_knows_the_password_is_told(home):
    data, *_ = toy()
    home.begin(data)
    home.built(data, {"p.png": b"picture"})
    paths = ["runs", "search?words=draw", f"run/{RUN}", f"artifact/{data['key']}"]
    paths += [f"run/{RUN}/{part}" for part in ("curves", "rollouts", "verdict", "graph")]
    paths += [f"file/draw/{data['key']}/p.png", f"preview/draw/{data['key']}/0", "absent"]
    for path in paths:
        for wrong in (None, "", "foundry:", "foundry:secreT", "foundry:secret2"):
            status, headers, body = home.ask(f"/foundry-live/{path}", password=wrong)
            assert status == 401 and headers[b"www-authenticate"].startswith(b"Basic ")
            assert RUN.encode() not in body and b"picture" not in body
    twice = [(b"authorization", b"Basic " + base64.b64encode(PASSWORD.encode()))]
    assert home.ask("/foundry-live/runs", headers=twice)[0] == 401


@pytest.mark.parametrize("path", SHELLS)
def test_a_page_holds_nothing_and_runs_its_own_script_alone(home, path):
    home.begin(*toy())
    status, headers, body = home.ask(path, password=None)
    assert status == 200 and RUN.encode() not in body
    policy = headers[b"content-security-policy"].decode()
    for tag, source in (("script", "script-src"), ("style", "style-src")):
        (text,) = re.findall(rb"<%b>(.*?)</%b>" % (tag.encode(), tag.encode()), body, re.DOTALL)
        known = base64.b64encode(hashlib.sha256(text).digest()).decode()
        assert f"{source} 'sha256-{known}';" in policy
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy and "form-action 'none'" in policy
    for name, value in ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")):
        assert headers[name] == value


def test_scripts_make_no_html_of_texts_and_lead_nowhere(home):
    for path in SHELLS:
        page = home.ask(path)[2].decode()
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert word not in page, word
        assert re.findall(r"""["'`(]https?://[^"'`) ]*""", page) == ['"http://www.w3.org/2000/svg']
        assert not re.findall(r"<[^>]*\son[a-z]+=", page)


def test_names_and_texts_of_anybody_are_json(home):
    data, *_ = toy(says=EVIL)
    evil = stage(EVIL, "draw", {EVIL: EVIL}, {}, reasons=[{"category": EVIL, "path": EVIL}])
    home.begin(data, evil, pipeline=EVIL)
    home.built(evil, {"a": "a"}, metrics={EVIL: EVIL})
    for path in ("runs", f"run/{RUN}", f"run/{RUN}/graph", f"artifact/{evil['key']}"):
        status, headers, body = home.ask(f"/foundry-live/{path}")
        assert (status, headers[b"content-type"]) == (200, b"application/json")
        assert headers[b"x-content-type-options"] == b"nosniff"
        assert EVIL in json.dumps(json.loads(body)), path


@pytest.mark.parametrize(
    "run",
    ["..", ".", "../..", f"{RUN}/..", f"{RUN}/../{RUN}", f"{RUN}/logs", f"{RUN}//", f"{RUN}\\..",
     "", "/", f"{RUN}\0", "a" * 300, f"{RUN}\n", "%2e%2e"],
)  # fmt: skip
def test_no_address_of_a_run_leads_elsewhere(home, run):
    home.begin(*toy())
    for path in (f"/foundry-run/{run}", f"/foundry-live/run/{run}"):
        assert home.ask(path)[0] == 404


def test_no_address_of_a_file_leads_elsewhere(home, tmp_path):
    data, model, exam = toy()
    home.begin(data, model, exam)
    home.built(data, {"p.png": b"picture", "weights.bin": b"w", "page.html": b"<p>"})
    (tmp_path / "outside.png").write_bytes(b"outside")
    (home_dir() / "store" / "draw" / data["key"] / "new.png").write_bytes(b"not committed")
    kept = home.store.scratch(exam["key"]) / "pictures" / "frames" / "push"
    kept.mkdir(parents=True)
    (kept.parent / "000000_success.png").write_bytes(b"above")
    (kept / "000000_success.png").symlink_to(tmp_path / "outside.png")
    (kept / "000002_success.png").mkdir()
    os.mkfifo(kept / "000001_success.png")
    key, other = data["key"], exam["key"]
    assert home.ask(f"/foundry-live/file/draw/{key}/p.png")[2] == b"picture"
    for path in (
        f"file/draw/{key}/weights.bin", f"file/draw/{key}/page.html", f"file/draw/{key}/new.png",
        f"file/draw/{key}/artifact.json", f"file/draw/{key}/../{key}/p.png",
        f"file/draw/{key}//p.png", f"file/draw/{key}/./p.png", f"file/../{key}/p.png",
        f"file/work/{key}/p.png", f"file/draw/{key[:12]}/p.png", f"file/draw/{digest('no')}/p.png",
        f"file/draw/{key}/../../../../outside.png", f"file/draw/{key}/p.png\0",
        f"made/{other}/frames/push/000000_success.png",
        f"made/{other}/frames/../000000_success.png",
        f"made/{other}/frames/push/000001_success.png",
        f"made/{other}/frames/push/000002_success.png",
        f"made/{other}/../scratch/pictures/frames/push/000000_success.png",
        f"preview/draw/{key}/0", f"preview/draw/{key}/-1", f"artifact/{key[:12]}", "artifact/..",
    ):  # fmt: skip
        status, _, body = home.ask(f"/foundry-live/{path}")
        assert status == 404, (path, body)
        for word in (b"outside", b"above", b"not committed"):
            assert word not in body


def test_a_file_that_is_not_what_was_committed_is_not_shown(home):
    data, *_ = toy()
    home.begin(data)
    home.built(data, {"p.png": b"picture"})
    path = home_dir() / "store" / "draw" / data["key"] / "p.png"
    path.write_bytes(b"pictura")
    assert b"not what was committed" in home.ask(f"/foundry-live/file/draw/{data['key']}/p.png")[2]
    path.unlink()
    path.symlink_to("/etc/hostname")
    assert home.ask(f"/foundry-live/file/draw/{data['key']}/p.png")[0] == 404


def test_what_is_larger_than_a_page_shows_is_refused_unread(home, monkeypatch):
    monkeypatch.setattr("flows.live.files.MOST_BYTES", 5)
    data, _, exam = toy()
    home.begin(data, exam)
    home.built(data, {"p.png": b"picture"})
    said = home.ask(f"/foundry-live/file/draw/{data['key']}/p.png")[2]
    assert b"7 bytes, 5 are shown at most" in said
    kept = home.store.scratch(exam["key"]) / "pictures" / "frames" / "push"
    kept.mkdir(parents=True)
    (kept / "000000_success.png").write_bytes(b"123456")
    assert home.ask(f"/foundry-live/made/{exam['key']}/frames/push/000000_success.png")[0] == 404


def test_a_picture_that_is_opened_as_a_page_may_do_nothing(home):
    data, *_ = toy()
    home.begin(data)
    home.built(data, {"s.svg": "<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>"})
    _, headers, _ = home.ask(f"/foundry-live/file/draw/{data['key']}/s.svg")
    policy = headers[b"content-security-policy"].decode()
    assert policy.startswith("sandbox; default-src 'none'") and "script-src" not in policy
    assert headers[b"cross-origin-resource-policy"] == b"same-origin"


def test_pages_are_only_read_and_everything_else_is_prefects(home):
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        for path in (*SHELLS, "/foundry-live/runs"):
            assert home.ask(path, method=method)[0] == 405
    for path in ("/api/health", "/foundry-runsx", "/foundry-report/x", "/foundry-login", "/runs"):
        assert home.ask(path) is None
    assert home.passed[-1] == "/runs"


@pytest.mark.parametrize("words", ["x" * 5000, "'; drop table event; --", "%00", "%ff%fe", "\\"])
def test_words_of_a_search_are_words(home, words):
    home.begin(*toy())
    for path in ("runs", "search"):
        status, _, _ = home.ask(f"/foundry-live/{path}?words={words}")
        assert status in (200, 503), path


def test_a_sample_that_says_too_much_is_one_line(tmp_path, monkeypatch, capsys):
    """Its process says no more than the server may hold."""
    shards = make_captions(tmp_path / "shards", samples=2, size=16)
    monkeypatch.setattr("resource.setrlimit", lambda *_: None)
    monkeypatch.setattr(sample, "MOST_BYTES", 500)
    assert sample.main(str(shards), "0") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["error"] == "the sample says more than a page shows" and told["hint"]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("short\n", "short"),
        ("not ended", "not ended"),
        ("word " * 79 + "five\n", ("word " * 79 + "five")),
        ("word " * 79 + "longe", "word " * 78 + "word …"),
    ],
)
def test_a_verdict_is_cut_between_words(line, shown):
    assert _whole_words(line) == shown
