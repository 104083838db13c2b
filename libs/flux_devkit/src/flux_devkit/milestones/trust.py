"""Trust: who is not proven gets nothing, who is proven gets their own, and nothing that arrives stops a lane or leaks.

The hostile and the flood lane, the rotation of keys and the search for canaries are programs with figures of their own; the
rest are the suites that carry the proofs. About twenty minutes.
"""

from __future__ import annotations

from typing import Final

from flux_devkit.finding import Item
from flux_devkit.suites import passing, program

POSTGRES: Final = "tests/integration/common/postgres"
AUTH: Final = "tests/unit/common/auth"

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
    "binding": passing(
        "a request is bound by claim or by proof, where its agency asks for it; SDK and CLI make both",
        f"{AUTH}/test_binding.py",
        "tests/integration/ingest/test_binding.py",
        "tests/unit/client/cli/test_binding.py",
        all_run=True,
    ),
    "replay": passing(
        "a single use serves one body; a redelivery is none; the decision's transaction remembers, and forgets in time",
        "tests/unit/ingest/test_decide.py",
        "tests/integration/ingest/test_decisions.py",
        "tests/integration/ingest/test_requests.py",
        "tests/integration/ingest/test_expiry.py",
        all_run=True,
    ),
    "keysets": passing(
        "a key set with one key that may not be is refused whole",
        f"{AUTH}/test_keyset.py",
        all_run=True,
    ),
    "fetching": passing(
        "key sets are fetched within a size, without redirects, from a host that is proven",
        f"{AUTH}/test_fetching.py",
        all_run=True,
    ),
    "registry": passing(
        "every fault of an agency registry is explained",
        f"{AUTH}/test_registry.py",
        f"{AUTH}/test_registry_file.py",
        all_run=True,
    ),
    "secrets": passing(
        "production refuses a secret in a variable, and what is not proven",
        "tests/unit/common/settings/test_production.py",
        all_run=True,
    ),
    "controls": passing(
        "every control that is asked for has a mechanism, and a test that exists",
        "tests/architecture/test_controls.py",
        all_run=True,
    ),
    "hostile": program("hostile records on the live lane", "flux_devkit.proofs.hostile"),
    "tenancy": passing(
        "roles, tables and statements; a policy, grant or FORCE that is gone is found; a pool of one, cancelled",
        f"{POSTGRES}/test_tenancy.py",
        f"{POSTGRES}/test_readers.py",
        f"{POSTGRES}/test_reader_limits.py",
        f"{POSTGRES}/test_doctor.py",
        f"{POSTGRES}/test_catalogue.py",
        f"{POSTGRES}/test_database.py",
        all_run=True,
    ),
    "brokers": passing(
        "each login reaches its own topics and groups, and nothing else; nobody has a right over the cluster",
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
