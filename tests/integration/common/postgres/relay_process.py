"""A relay that may be killed at any instruction. Run: `relay_process.py DSN PASSWORD_FILE BOOTSTRAP PREFIX`.

It relays shard 0 of checkpoint until it is killed, and says `up` once it runs.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from flux_common.kafka.publisher import TransactionalPublisher
from flux_common.kernel.clock import SystemClock
from flux_common.postgres import relay as room
from flux_common.postgres.database import Database
from flux_common.postgres.relay import PublishRefused, Relay
from flux_common.settings import KafkaSettings, PostgresSettings


async def main(dsn: str, password_file: str, bootstrap: str, prefix: str) -> None:
    """Relay for ever."""
    room.ROWS_MAX = 20  # many small transactions: a kill is likely to be inside one
    database = await Database.open(PostgresSettings(dsn=dsn, password_file=Path(password_file)), "relay")
    kafka = KafkaSettings(bootstrap=bootstrap, topic_prefix=prefix)

    def transport() -> TransactionalPublisher:
        return TransactionalPublisher(kafka, "checkpoint", 0, SystemClock(), refused=PublishRefused)

    # All of them are one holder, as a container that is restarted under its name is: nobody waits for a dead one's lease.
    relay = Relay(database, 0, transport, "the container", asyncio.Event(), SystemClock())
    print("up", flush=True)
    await relay.run(asyncio.Event())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
