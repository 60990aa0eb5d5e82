"""Where a user is told of a run's page: at the end of a run, in a run's log, in Prefect's UI."""

import json

from live_home import RUN

from flows import processes
from flows.cli.commands import run
from flows.deployment import artifacts
from flows.prefect.addresses import run_page, served

RESULT = {"run_id": RUN, "status": "succeeded", "seconds": 1.0, "stages": [], "metrics": {}}
URL = "http://127.0.0.1:4321"


def served_here():
    return processes.record("serve", "4321", facts={"url": f"{URL}/api"})


def test_the_end_of_a_run_names_its_page_where_a_server_of_this_home_runs(home, capsys):
    run.summarise(RESULT)
    assert "page:" not in capsys.readouterr().out and served() is None
    entry = served_here()
    run.summarise(RESULT)
    assert f"page:   {URL}/foundry-run/{RUN}\n" in capsys.readouterr().out
    dead = json.loads(entry.path.read_text())
    dead["process"] |= {"pid": 2**22 - 3, "started": 1}
    entry.path.write_text(json.dumps(dead))
    assert served() is None


def test_prefects_page_links_to_the_runs_page_of_the_same_server_alone(home, monkeypatch):
    shown = []
    monkeypatch.setattr(artifacts, "show_link", lambda *given: shown.append(given))
    monkeypatch.setattr(artifacts, "configured", lambda: True)
    monkeypatch.setattr(artifacts, "server_url", lambda: f"{URL}/api")
    artifacts.show_run(RUN)
    assert not shown  # a server of somebody else has no such page
    served_here()
    artifacts.show_run(RUN)
    ((key, link, *_),) = shown
    assert (key, link) == ("run", run_page(RUN))
