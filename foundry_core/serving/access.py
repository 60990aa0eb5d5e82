"""Who may use a port: this machine without a word, everybody else with the token."""

import hmac
import os

from foundry_core.endpoint import is_loopback
from foundry_core.errors import FoundryError

TOKEN = "FOUNDRY_SERVE_TOKEN"
_SHORTEST = 16


def served_token(host: str) -> str:
    """Of the environment, "" without one. FoundryError for a host beyond loopback without."""
    token = os.environ.get(TOKEN, "")
    if token and len(token) < _SHORTEST:
        raise FoundryError(
            f"{TOKEN} has {len(token)} characters, fewer than {_SHORTEST}: it can be guessed",
            'e.g. export FOUNDRY_SERVE_TOKEN="$(openssl rand -hex 16)"',
        )
    if not token and not is_loopback(host):
        raise FoundryError(
            f"a policy on {host} can be used by whoever reaches the port: it needs a token",
            f"set {TOKEN} here and at the clients, or stay on 127.0.0.1",
        )
    return token


def allowed(given: str, token: str) -> bool:
    """Whether a client's authorization (`Bearer ...`, `Api-Key ...`, or the token alone) fits."""
    if not token:
        return True
    scheme, _, rest = given.partition(" ")
    shown = rest if scheme.lower() in ("bearer", "api-key") else given
    return hmac.compare_digest(shown.encode(), token.encode())
