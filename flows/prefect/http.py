"""What Foundry's own pages beside Prefect's are made of: answers that a browser can make nothing
else of, and the password that they ask for."""

import base64
import hashlib
import hmac
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]
CLOSED = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
# How scripts of these pages ask: the password lies where Prefect's own pages keep it.
ASKING = """
const password = localStorage.getItem("prefect-password");
const headers = password ? {Authorization: "Basic " + password} : {};
"""


class Password:
    """`user:password`, empty for none."""

    def __init__(self, text: str) -> None:
        self._expected = b"Basic " + base64.b64encode(text.encode()) if text else b""

    def shown_in(self, headers: Headers) -> bool:
        """Whether a request with these headers may be answered."""
        if not self._expected:
            return True
        given = [value for name, value in headers if name.lower() == b"authorization"]
        return len(given) == 1 and hmac.compare_digest(given[0], self._expected)


def digest_source(text: str) -> str:
    """How a policy names an inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


async def answer(
    status: int,
    content_type: bytes,
    body: bytes,
    send: Send,
    policy: str = CLOSED,
    more: Headers = (),
) -> None:
    """A whole answer, which no browser takes for anything else, keeps, or shows within a page."""
    named = content_type + (b"; charset=utf-8" if content_type.startswith(b"text/") else b"")
    headers = [
        (b"content-type", named),
        (b"content-length", str(len(body)).encode()),
        (b"content-security-policy", policy.encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"x-frame-options", b"DENY"),
        (b"referrer-policy", b"no-referrer"),
        (b"cross-origin-resource-policy", b"same-origin"),
        (b"cache-control", b"no-store"),
        *more,
    ]
    if status == 401:
        headers.append((b"www-authenticate", b'Basic realm="foundry", charset="UTF-8"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
