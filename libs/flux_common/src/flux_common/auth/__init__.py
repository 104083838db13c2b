"""Token verification: who sent a record, proven by keys that an agency's issuers publish.

`load_trust` or `RegistrySource` gives the registry and the keys, `verify` runs the steps of docs/trust.md, `authorize`
says what the bearer may ask for. Everything else here is a part of these.
"""

from flux_common.auth.faults import ConfigurationRefused, Fault
from flux_common.auth.identity import Actor, Binding, Role, Verified
from flux_common.auth.keyset import KeyRing, load_keys
from flux_common.auth.memory import VerifiedTokens
from flux_common.auth.record import RecordContext, authorization_of, context_of
from flux_common.auth.refusal import NotPermitted, TokenRefused
from flux_common.auth.registry import Agency, Issuer, Registry, Retention
from flux_common.auth.registry_file import load_registry
from flux_common.auth.roles import Ask, authorize
from flux_common.auth.source import Refresh, RegistrySource, Trust, load_trust
from flux_common.auth.token import LEEWAY_S, verify

__all__ = [
    "LEEWAY_S",
    "Actor",
    "Agency",
    "Ask",
    "Binding",
    "ConfigurationRefused",
    "Fault",
    "Issuer",
    "KeyRing",
    "NotPermitted",
    "RecordContext",
    "Refresh",
    "Registry",
    "RegistrySource",
    "Retention",
    "Role",
    "TokenRefused",
    "Trust",
    "Verified",
    "VerifiedTokens",
    "authorization_of",
    "authorize",
    "context_of",
    "load_keys",
    "load_registry",
    "load_trust",
    "verify",
]
