"""The signature, by PyJWT, with the one algorithm of the one key.

The same function verifies tokens and proofs, so the corpus of hostile signatures that runs through it speaks for both.
PyJWT's JWS layer is used and its claims layer is not: that one reads the payload with a lenient reader and judges it by
the machine's clock, while Flux reads it once, strictly (claims), and judges it by LogAppendTime (token).
Source: RFC 7515 §5.2, RFC 8725 §3.1 (the algorithm is the key's, never the token's choice).
"""

from __future__ import annotations

from typing import Final

from jwt import PyJWS, PyJWTError

from flux_common.auth.compact import Compact
from flux_common.auth.jwk import ALGORITHMS, VerificationKey
from flux_common.auth.refusal import TokenRefused
from flux_common.kernel.codes import Code

# An instance of its own: algorithms that anyone registers with PyJWT's global one do not exist here.
_JWS: Final = PyJWS(
    algorithms=sorted(ALGORITHMS), options={"verify_signature": True, "enforce_minimum_key_length": True}
)


def verify_signature(compact: Compact, key: VerificationKey) -> None:
    """Return if `key` made the signature of `compact` with its own algorithm; raise `TokenRefused` otherwise."""
    if compact.header.get("alg") != key.algorithm:
        raise TokenRefused(Code.ALGORITHM_REFUSED)
    try:
        _JWS.decode_complete(compact.token, key.public_key, algorithms=[key.algorithm])
    except PyJWTError:
        raise TokenRefused(Code.SIGNATURE_INVALID) from None
