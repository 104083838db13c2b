"""An identity provider on the loopback: publishes a key set as it is told, and can misbehave as strangers' servers do.

It counts what it is asked, so that a test can say how often Flux asked. `publish` takes effect with the next request.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from flux_client.keys import SigningKey


@dataclass(frozen=True)
class Answer:
    """What is answered: `drip_s` is the pause behind each byte, `length` what is said of the body's."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    drip_s: float = 0.0
    length: int | None = None


class IdentityProvider:
    """A server of one key set; a context manager. With `tls` it speaks https."""

    def __init__(self, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self.answer = Answer()
        self.asked: list[float] = []
        self._ended = threading.Event()
        self._scheme = "https" if tls else "http"
        self._server = _Server((host, 0), _handler(self), tls)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def port(self) -> int:
        """Return the port."""
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """Return the key set's URL."""
        return f"{self._scheme}://127.0.0.1:{self.port}/.well-known/jwks.json"

    def publish(self, *keys: SigningKey) -> None:
        """Answer with these public keys from now on."""
        self.answer = Answer(json.dumps({"keys": [key.public_jwk() for key in keys]}).encode())

    def respond(self, request: BaseHTTPRequestHandler) -> None:
        """Answer a request."""
        answer = self.answer
        self.asked.append(time.monotonic())
        request.send_response(answer.status)
        for name, value in answer.headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(answer.body) if answer.length is None else answer.length))
        request.end_headers()
        if not answer.drip_s:
            request.wfile.write(answer.body)
            return
        for byte in answer.body:
            if self._ended.wait(answer.drip_s):
                return
            request.wfile.write(bytes([byte]))

    def close(self) -> None:
        """End; the port refuses connections from then on."""
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread.is_alive():
            self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(
        self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], tls: ssl.SSLContext | None
    ) -> None:
        super().__init__(address, handler)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that goes away, or refuses the certificate, is what is tested."""


def _handler(provider: IdentityProvider) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 5

        def do_GET(self) -> None:
            provider.respond(self)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    return Handler
