"""A whole Flux for a test or a demonstration: servers, an installation on them, and its four services as processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flux_client.keys import load_key, private_key_path
from flux_devkit.errors import DevkitError
from flux_devkit.installation import SERVICES, Installation
from flux_devkit.kafka import delete_topics
from flux_devkit.postgres import create_database, drop_database
from flux_devkit.services import Services


class Flux:
    """One installation with its services; a context manager.

    Its database is made at the start, and dropped at the end with the topics that have its prefix (without one they stay).
    """

    def __init__(self, installation: Installation, logs: Path, *, keep_database: bool = False) -> None:
        self.installation = installation
        self.services = Services(installation.services(SERVICES), logs)
        self.logs = logs
        self._keep = keep_database

    def __enter__(self) -> Flux:
        create_database(self.installation.servers.postgres_dsn, self.installation.database)
        self.installation.prepare_now()
        self.services.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.services.stop()
        if not self._keep:
            drop_database(self.installation.servers.postgres_dsn, self.installation.database)
            delete_topics(self.installation.kafka().confluent_options(), self.installation.topic_prefix)

    def key(self, agency_id: str) -> Any:
        """Return the development key of an agency's issuer."""
        return load_key(private_key_path(self.installation.keys, agency_id))

    def folder(self, *parts: str) -> Path:
        """Return a folder inside what agencies may use, made if absent."""
        path = self.installation.folder.joinpath(*parts)
        path.mkdir(parents=True, exist_ok=True)
        return path


def wait_until(what: str, holds: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until `holds`; raises DevkitError naming `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise DevkitError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.1)
