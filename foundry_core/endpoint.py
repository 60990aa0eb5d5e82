"""Addresses that are looked at before anything is sent there: a port that no host has, a host that
nobody knows, a name server that does not answer."""

import ipaddress
import socket
import threading
import urllib.request
from urllib.parse import urlsplit

from foundry_core.errors import FoundryError

_SECONDS = 5.0


def check_url(url: str, where: str) -> None:
    """FoundryError for what is no http address, and for a host without an address. where: what the
    address was given by."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        usable = usable and parts.port != 0
    except ValueError:  # what is no port
        usable = False
    if not usable or parts.hostname is None:
        raise FoundryError(f"{where} = {url!r} is no address", "e.g. http://host:9000")
    # Behind a proxy, the proxy looks hosts up.
    if parts.scheme not in urllib.request.getproxies():
        check_host(parts.hostname, where)


def check_host(host: str, where: str) -> None:
    """FoundryError for a host without an address, within seconds."""
    found: list[OSError | UnicodeError | None] = []

    def look_up() -> None:
        try:
            socket.getaddrinfo(host, None)
            found.append(None)
        except (OSError, UnicodeError) as error:
            found.append(error)

    # The system's own patience with a name server that is away cannot be set, and is long.
    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(_SECONDS)
    problem = found[0] if found else f"no name server answered in {_SECONDS:.0f} s"
    if problem is not None:
        reason = getattr(problem, "strerror", None) or problem
        raise FoundryError(
            f"{where}: host {host!r} is not known ({reason})", "mend the name, or the network"
        )


def is_loopback(host: str) -> bool:
    """Whether a server there is reached from this machine alone."""
    address = ip_address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def ip_address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """None for what is no address but a name."""
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
