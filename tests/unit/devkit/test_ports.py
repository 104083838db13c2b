"""Ports that a server can come back to."""

from __future__ import annotations

import socket

from flux_devkit.ports import free_port, is_free


def test_a_port_is_below_the_ephemeral_range() -> None:
    """Else a client that retries while the server is down can be given the server's own port."""
    drawn = {free_port() for _ in range(50)}

    assert (max(drawn) < 32_768, len(drawn) > 40) == (True, True)


def test_a_port_in_use_is_not_free() -> None:
    """Judged by the kernel."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        while_open = is_free(port)

    assert (while_open, is_free(port)) == (False, True)
