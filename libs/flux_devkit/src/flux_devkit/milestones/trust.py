"""Trust: who is not proven gets nothing, who is proven gets their own, and nothing that arrives stops a lane or leaks.

The hostile and the flood lane, the rotation of keys and the search for canaries are programs with figures of their own; the
rest are the suites that carry the proofs. About fifteen minutes.
"""

from __future__ import annotations

from typing import Final

from flux_devkit.finding import Item
from flux_devkit.suites import passing, program

POSTGRES: Final = "tests/integration/common/postgres"

ITEMS: Final[dict[str, Item]] = {
    "corpora": passing(
        "JSONTestSuite and Wycheproof JWS, through the code that judges requests",
        "tests/contracts/test_corpora.py",
        "tests/contracts/test_wycheproof.py",
        "tests/contracts/test_edge.py",
        all_run=True,
    ),
    "fuzz": passing(
        "any headers, token, key and body get a verdict; model and schema agree",
        "tests/unit/common/auth/test_token_fuzz.py",
        "tests/unit/ingest/test_reading_fuzz.py",
        "tests/contracts/test_generated_requests.py",
        all_run=True,
    ),
    "hostile": program("hostile records on the live lane", "flux_devkit.proofs.hostile"),
    "tenancy": passing(
        "roles, tables and statements; a policy, grant or FORCE that is gone is found; a pool of one, cancelled",
        f"{POSTGRES}/test_tenancy.py",
        f"{POSTGRES}/test_readers.py",
        f"{POSTGRES}/test_doctor.py",
        f"{POSTGRES}/test_catalogue.py",
        f"{POSTGRES}/test_database.py",
        all_run=True,
    ),
    "brokers": passing(
        "each login reaches its own topics and groups, and nothing else",
        "tests/integration/brokers",
        "tests/integration/common/kafka/test_acl.py",
        all_run=True,
    ),
    "keys": passing(
        "an identity provider down for an hour of the clock, then fail closed; a copied key locks nobody out",
        "tests/unit/common/runtime/test_key_refresh.py",
        "tests/unit/common/auth/test_source.py",
        "tests/unit/common/auth/test_shared_keys.py",
        all_run=True,
    ),
    "rotation": program("a key's rotation under load", "flux_devkit.proofs.rotation"),
    "flood": program("a neighbour beside a flood", "flux_devkit.proofs.flood"),
    "canary": program("no token and no refused value anywhere", "flux_devkit.proofs.canary"),
}
