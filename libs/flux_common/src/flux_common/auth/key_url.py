"""Where an issuer publishes its key set, if not in a file: an https URL, settled before anything is fetched.

The host is the URL's own and no other: nothing that is answered can lead elsewhere (`fetching`). Plain http is for
development, and to an address of the loopback alone: a name could be made to mean another machine.
Source: RFC 3986, RFC 8615 (such documents lie below `/.well-known/`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

_PORTS: Final = {"https": 443, "http": 80}
_TEXT: Final = re.compile(
    r"[\x21\x23-\x3b\x3d\x3f-\x5b\x5d\x5f\x61-\x7a~]+"
)  # no space, quote, angle, back-slash, tick
_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?\.?")


@dataclass(frozen=True, slots=True)
class KeyUrl:
    """A key set's URL and its parts: what to connect to, what to ask for, and whether TLS is spoken.

    As a string, for logs and messages, it has no query: some providers want a key of theirs there.
    """

    text: str
    host: str
    port: int
    target: str
    tls: bool

    @property
    def authority(self) -> str:
        """Return the value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS["https" if self.tls else "http"] else f"{host}:{self.port}"

    def __str__(self) -> str:
        before, mark, _ = self.text.partition("?")
        return f"{before}?…" if mark else before


def is_url(text: str) -> bool:
    """Return whether `text` is meant as a URL and not as a file's name."""
    return "://" in text


def read_key_url(text: str) -> KeyUrl:
    """Return the URL that `text` is; raise `ValueError` that says what is wrong with it."""
    if _TEXT.fullmatch(text) is None:
        raise ValueError("the URL has a character that must be percent-encoded")
    parts = urlsplit(text)
    if parts.scheme not in _PORTS:
        raise ValueError("the URL is not https")
    if "@" in parts.netloc or parts.fragment:
        raise ValueError("the URL holds a login or a fragment")
    host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]  # `port` raises ValueError beyond 65535
    if not _is_address(host) and _NAME.fullmatch(host) is None:
        raise ValueError("the URL has no host, or one that is no DNS name")
    if parts.scheme == "http" and not (_is_address(host) and ip_address(host).is_loopback):
        raise ValueError("plain http is for addresses of the loopback alone (127.0.0.1, [::1])")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return KeyUrl(text, host, port, target, tls=parts.scheme == "https")


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
