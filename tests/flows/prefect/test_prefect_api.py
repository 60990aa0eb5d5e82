"""Calls to a server that is away, and to none."""

import httpx
import pytest
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.dispatch.remote import patiently
from flows.prefect import api as prefect_api
from foundry_core.errors import FoundryError
from tests.orchestration import free_port


def answer(status):
    request = httpx.Request("GET", "http://127.0.0.1/api")
    return PrefectHTTPStatusError(
        str(status), request=request, response=httpx.Response(status, request=request)
    )


def unreachable():
    error = FoundryError("the server does not answer", "wait")
    error.__cause__ = httpx.ConnectError("refused")
    return error


class Call:
    """Raises its errors one after the other, then answers."""

    def __init__(self, *errors):
        self.errors = list(errors)

    def __call__(self):
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


@pytest.mark.parametrize("error", [httpx.ConnectError("refused"), answer(503), unreachable()])
def test_a_server_that_comes_back_is_waited_for(error):
    waits = []
    said = lambda: waits.append(1)  # noqa: E731
    assert patiently(Call(error, error), prefect_api.away, said, 1.0) == "answer"
    assert len(waits) == 2


@pytest.mark.parametrize("error", [answer(404), FoundryError("no such deployment", "apply it")])
def test_other_errors_are_not_waited_for(error):
    waits = []
    said = lambda: waits.append(1)  # noqa: E731
    with pytest.raises(type(error)):
        patiently(Call(error), prefect_api.away, said, 60.0)
    assert waits == []


def test_patience_ends():
    errors = [httpx.ConnectError("refused")] * 100
    with pytest.raises(httpx.ConnectError):
        patiently(Call(*errors), prefect_api.away, lambda: None, 0.2)


def test_a_server_that_is_not_there_is_named():
    url = f"http://127.0.0.1:{free_port()}/api"
    with (
        temporary_settings({PREFECT_API_URL: url}),
        pytest.raises(FoundryError, match=f"the Prefect server at {url} does not answer"),
    ):
        prefect_api.open_runs()


def test_without_a_server_the_remedy_is_named():
    with temporary_settings({PREFECT_API_URL: None}):
        assert not prefect_api.configured()
        with pytest.raises(FoundryError) as caught:
            prefect_api.server_url()
    assert "foundry serve" in caught.value.hint
