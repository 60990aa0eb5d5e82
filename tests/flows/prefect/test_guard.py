"""Which requests pass the guard before Prefect's server."""

import asyncio

import pytest

from flows.prefect.guard import Guard


def passed(kind="http", path="/api/admin/version", names=("lab.example",), **headers):
    """(whether the request reached the server, what was sent in its place)."""
    reached, sent = [], []

    async def server(scope, receive, send):
        reached.append(scope)

    async def send(message):
        sent.append(message)

    given = [
        (name.encode(), value.encode())
        for name, values in headers.items()
        for value in ([values] if isinstance(values, str) else values)
    ]
    scope = {"type": kind, "path": path, "headers": given}
    asyncio.run(Guard(server, names)(scope, None, send))
    return bool(reached), sent


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:4200", "localhost", "LOCALHOST:1", "[::1]:4200", "10.0.0.7:80", "lab.example:4200"],
)
def test_own_names_and_numbers_pass(host):
    assert passed(Host=host) == (True, [])
    assert passed(Host=host, Origin=f"http://{host}") == (True, [])
    assert passed("websocket", Host=host) == (True, [])


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "", "[::1", "127.0.0.1@evil.example", "::1"]
)
def test_other_names_are_refused(host):
    reached, sent = passed(Host=host)
    assert not reached
    assert sent[0]["status"] == 403


def test_none_and_two_names_are_refused():
    assert not passed()[0]
    assert not passed(Host=["localhost", "evil.example"])[0]


@pytest.mark.parametrize("origin", ["null", "http://evil.example", "http://localhost:4201", "x"])
def test_pages_of_others_are_refused(origin):
    assert not passed(Host="localhost:4200", Origin=origin)[0]
    reached, sent = passed("websocket", Host="localhost:4200", Origin=origin)
    assert not reached
    assert sent[0]["type"] == "websocket.close"


def test_a_proxy_may_speak_tls():
    assert passed(Host="lab.example", Origin="https://lab.example")[0]


def test_the_start_of_the_server_passes():
    assert passed("lifespan")[0]


def test_names_are_alike_in_any_case():
    assert passed(Host="LocalHost:4200", Origin="http://localhost:4200")[0]
    assert passed(Host="localhost:4200", Origin="http://LOCALHOST:4200")[0]
    assert passed(Host="lab.example")[0]
    assert passed(Host="other.example", names=["Other.Example"])[0]
