"""Nothing that opens a door, and no content of a record, ever reaches a log.

Three nets, each enough for its own case: values under a key that names a secret, text that looks like a token, and
bytes of any kind (a record's value or key). A canary test greps what real processes wrote for all of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

REDACTED: Final = "[redacted]"

SECRET_KEY: Final = re.compile(
    r"(^|[-_.])(authorization|token|tokens|jwt|password|passwd|secret|cookie|private[-_]key|flux[-_]proof)$", re.I
)
# A compact JWS (RFC 7515 §7.1): its header is a JSON object, so base64url of `{"` opens it; or anything after Bearer.
SECRET_TEXT: Final = re.compile(r"\beyJ[\w-]*\.[\w-]*\.?[\w-]*|\bBearer\s+[^\s\"',;]+|://[^/\s:@]+:[^/\s@]+@", re.I)


def redact(value: Any) -> Any:
    """Return `value` without secrets, as something JSON can say; containers are copied."""
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if isinstance(value, Mapping):
        return {str(key): redact_named(str(key), each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return _redact_pair(value) if _is_header(value) else [redact(each) for each in value]
    return value


def redact_named(name: str, value: Any) -> Any:
    """Return what may be said of `value` under the key `name`."""
    return REDACTED if SECRET_KEY.search(name) and value is not None else redact(value)


def redact_text(text: str) -> str:
    """Return `text` with everything that looks like a token, or like a password in an address, taken out."""
    return SECRET_TEXT.sub(REDACTED, text)


def _is_header(value: Any) -> bool:
    """Say whether `value` is a (name, value) pair, as Kafka and HTTP headers are."""
    return isinstance(value, tuple | list) and len(value) == 2 and isinstance(value[0], str)


def _redact_pair(pair: Any) -> list[Any]:
    name, value = pair
    return [redact_text(name), redact_named(name, value)]
