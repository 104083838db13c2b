"""One GET of a key set: to the URL's own host, with bounds on everything that a stranger's server could draw out.

h11 speaks HTTP, asyncio and ssl make the connection; a client library would bring redirects, cookies, proxies from the
environment and decompression, each to be switched off again. What must hold: the certificate is one for the URL's host,
by the given authorities; nothing but 200 is an answer, least of all a redirect; a body is not compressed and not larger
than it may be; the whole takes no longer than it may, however slowly it drips. The connection is used once.
Failure: `FetchFailed` with what happened and what to do about it, and nothing of what the server said.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import Final

import h11

from flux_common.auth.key_url import KeyUrl
from flux_common.auth.keyset import JWKS_BYTES_MAX

HEAD_BYTES_MAX: Final = 16 * 1024
_CHUNK: Final = 16 * 1024
_PLAIN: Final = (b"", b"identity")


class FetchFailed(Exception):
    """The key set could not be had; the message says why, `next_step` what to do."""

    def __init__(self, problem: str, next_step: str) -> None:
        super().__init__(problem)
        self.next_step = next_step


@dataclass(frozen=True, slots=True)
class Fetcher:
    """How key sets are fetched: whose certificates count, how long it may take and how large an answer may be."""

    tls: ssl.SSLContext
    timeout_s: float = 5.0
    bytes_max: int = JWKS_BYTES_MAX

    async def fetch(self, url: KeyUrl) -> bytes:
        """Return the bytes at `url`; raises `FetchFailed` and nothing else that a server could cause."""
        try:
            async with asyncio.timeout(self.timeout_s):
                return await self._get(url)
        except TimeoutError:
            raise FetchFailed(
                f"no whole answer within {self.timeout_s:g} s", "is the server reachable from here, and is it healthy?"
            ) from None
        except ssl.SSLCertVerificationError as error:
            raise FetchFailed(
                f"the certificate is refused ({error.verify_message})",
                f"give the server a certificate for {url.host}, or name its authority in FLUX_JWKS_CA_FILE",
            ) from None
        except h11.ProtocolError:
            raise FetchFailed("the answer is not HTTP/1.1, or is cut off", "does the URL name a web server?") from None
        except (OSError, UnicodeError) as error:
            said = getattr(error, "strerror", None) or type(error).__name__
            raise FetchFailed(f"no connection ({said})", "correct the URL, or let this host reach it") from None

    async def _get(self, url: KeyUrl) -> bytes:
        reader, writer = await asyncio.open_connection(
            url.host, url.port, ssl=self.tls if url.tls else None, happy_eyeballs_delay=0.25
        )
        try:
            connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES_MAX)
            writer.write(connection.send(_request(url)) or b"")
            writer.write(connection.send(h11.EndOfMessage()) or b"")
            await writer.drain()
            return await self._body(connection, reader)
        finally:
            writer.transport.abort()

    async def _body(self, connection: h11.Connection, reader: asyncio.StreamReader) -> bytes:
        body = bytearray()
        while True:
            match connection.next_event():
                case h11.NEED_DATA:
                    connection.receive_data(await reader.read(_CHUNK))
                case h11.Response() as response:
                    _check_head(response)
                case h11.Data(data=data):
                    body += data
                    if len(body) > self.bytes_max:
                        raise FetchFailed(f"larger than {self.bytes_max} bytes", "publish the signing keys alone")
                case h11.EndOfMessage():
                    return bytes(body)
                case h11.ConnectionClosed():
                    raise h11.RemoteProtocolError("closed before the answer was whole")


def verifying(ca_file: str | None = None) -> ssl.SSLContext:
    """Return a TLS context that trusts the authorities in `ca_file`, or the system's."""
    return ssl.create_default_context(cafile=ca_file)


def _request(url: KeyUrl) -> h11.Request:
    headers = {
        "Host": url.authority,
        "Accept": "application/jwk-set+json, application/json",
        "Accept-Encoding": "identity",
        "User-Agent": "flux",
        "Connection": "close",
    }
    return h11.Request(method="GET", target=url.target, headers=list(headers.items()))


def _check_head(response: h11.Response) -> None:
    if 300 <= response.status_code < 400:
        raise FetchFailed(f"answered {response.status_code}: a redirect is not followed", "name the final address")
    if response.status_code != 200:
        raise FetchFailed(f"answered {response.status_code}", "correct the path, or mend the server")
    if any(name == b"content-encoding" and value.lower() not in _PLAIN for name, value in response.headers):
        raise FetchFailed("the answer is compressed, though that was not asked for", "serve it as it is")
