"""Free TCP ports of 127.0.0.1 that stay free.

A port of the kernel's ephemeral range is a bad address for a server that restarts: while it is down, a client that
keeps trying can be given that very port as its own source, connect to itself, and keep the server from coming back.
So ports are drawn below that range, at random, so that neighbours who draw at the same time rarely meet.
"""

import random
import socket
from pathlib import Path

from flux_devkit.errors import DevkitError

FIRST_PORT = 15_000
EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """A port that nobody listens on. Raises DevkitError if 200 draws found none."""
    last = _first_ephemeral_port() - 1
    for _ in range(200):
        port = random.randint(min(FIRST_PORT, last - 1), last)
        if is_free(port):
            return port
    raise DevkitError(f"found no free port between {FIRST_PORT} and {last}")


def is_free(port: int) -> bool:
    """Whether a server could listen on the port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _first_ephemeral_port() -> int:
    if EPHEMERAL_RANGE.exists():
        first = int(EPHEMERAL_RANGE.read_text().split()[0])
        if first > FIRST_PORT + 1000:
            return first
    return 32_768
