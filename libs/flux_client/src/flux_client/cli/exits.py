"""How `flux-etl` ends: one exit status for each kind of end, and a next step with every error."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """The exit statuses; those from 10 to 17 are the verifier's own (`flux_client.verifier.Failure`)."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    REFUSED = 4
    RUN_FAILED = 5
    RUN_CANCELLED = 6
    TIMED_OUT = 7
    UNAVAILABLE = 8
    FAULTS = 9
    DRIFTED = 18
    INTERRUPTED = 130


MEANINGS = """\
0  done
1  an error that is not foreseen (with a traceback)
2  arguments, settings or the request's content are wrong
3  there is no such run, entry, topic or file
4  Flux refused the request or command
5  the run ended FAILED
6  the run ended CANCELLED
7  no answer within the time given
8  Kafka or PostgreSQL does not answer; try again
9  a check found faults (chains, agencies, topics)
10 audit verify: malformed      11 signature    12 root       13 density
14 audit verify: tenant         15 consistency  16 inclusion  17 fork
18 doctor: the database differs from what this release declares
130 interrupted"""


class Ended(Exception):
    """The command ends with this status; for an error, `message` and `next_step` go to standard error."""

    def __init__(self, status: int, message: str = "", next_step: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.next_step = int(status), message, next_step
