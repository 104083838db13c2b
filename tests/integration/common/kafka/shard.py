"""A relay of numbered rows that may be killed at any instruction. Run: `shard.py BOOTSTRAP PREFIX TOPIC COUNT`.

It opens the shard's transport, goes on behind the cursor it is told, publishes 25 rows a transaction up to COUNT, and
says `open CURSOR`, `done CURSOR` for each step.
"""

from __future__ import annotations

import asyncio
import sys

from flux_common.contracts.envelope import Outgoing
from flux_common.kafka.publisher import TransactionalPublisher
from flux_common.kernel.clock import SystemClock
from flux_common.settings import KafkaSettings

ROWS = 25


async def main(bootstrap: str, prefix: str, topic: str, count: int) -> None:
    """Publish rows 1 to `count`."""
    transport = TransactionalPublisher(
        KafkaSettings(bootstrap=bootstrap, topic_prefix=prefix), "checkpoint", 1, SystemClock()
    )
    cursor = await transport.open() or 0
    print(f"open {cursor}", flush=True)
    while cursor < count:
        numbers = range(cursor + 1, min(cursor + ROWS, count) + 1)
        rows = [Outgoing(topic, f"k{n % 3}", f"id-{n}", [("n", b"%d" % n)], b"%d" % n, "nasa") for n in numbers]
        cursor = numbers[-1]
        await transport.publish(rows, cursor)
        print(f"done {cursor}", flush=True)
    await transport.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
