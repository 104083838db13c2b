"""Public keys whose private half, or whose signatures, anyone can make.

A key that is well formed and weak verifies whatever its breaker signs; no later step can notice. So these tests run
when a key set is loaded, and refuse the set.
"""

from __future__ import annotations

from math import gcd, prod
from typing import Final

RSA_BITS_MIN: Final = 2048
RSA_BITS_MAX: Final = 8192
RSA_EXPONENT_MIN: Final = 65537
RSA_EXPONENT_BITS_MAX: Final = 64

_SMALL_PRIMES: Final = tuple(p for p in range(3, 168) if all(p % q for q in range(2, p)))
_PRIMORIAL: Final = prod(_SMALL_PRIMES)
# ROCA (CVE-2017-15361): the library's primes are k·M + 65537^a mod M, so modulo every small prime the modulus lies in
# the subgroup that 65537 generates. An honest modulus does so for all of them with a probability below 2^-27.
# Source: Nemec et al., "The Return of Coppersmith's Attack", CCS 2017, §2.2.
_ROCA_RESIDUES: Final = tuple((p, frozenset(pow(65537, k, p) for k in range(p))) for p in _SMALL_PRIMES)

_SIGN_BIT: Final = 1 << 255
_P25519: Final = 2**255 - 19
# The y-coordinates of the points of order 1, 2, 4 and 8, with their non-canonical spellings.
_ED25519_SMALL_ORDER: Final = frozenset(
    {
        0,
        1,
        _P25519 - 1,
        _P25519,
        _P25519 + 1,
        int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"),
        int.from_bytes(bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), "little"),
    }
)


def rsa_weakness(modulus: int, exponent: int) -> str | None:
    """Return what is wrong with an RSA public key, or None. Source: NIST SP 800-131A, FIPS 186-5 §A.1.1."""
    if not RSA_BITS_MIN <= modulus.bit_length() <= RSA_BITS_MAX:
        return f"the modulus has {modulus.bit_length()} bits; {RSA_BITS_MIN} to {RSA_BITS_MAX} are allowed"
    if exponent % 2 == 0 or exponent < RSA_EXPONENT_MIN or exponent.bit_length() > RSA_EXPONENT_BITS_MAX:
        return f"the exponent must be odd, at least {RSA_EXPONENT_MIN} and at most {RSA_EXPONENT_BITS_MAX} bits long"
    if modulus % 2 == 0 or gcd(modulus, _PRIMORIAL) != 1:
        return "the modulus has a small factor"
    if all(modulus % p in residues for p, residues in _ROCA_RESIDUES):
        return "the modulus has the fingerprint of ROCA (CVE-2017-15361)"
    return None


def ed25519_weakness(encoded: bytes) -> str | None:
    """Return what is wrong with an Ed25519 public key of 32 bytes, or None. Source: RFC 8032 §5.1.3, §8.9."""
    y = int.from_bytes(encoded, "little") & ~_SIGN_BIT
    if y in _ED25519_SMALL_ORDER:
        return "the key is a point of small order: anyone can sign for it"
    if y >= _P25519:
        return "the key is not canonically encoded"
    return None
