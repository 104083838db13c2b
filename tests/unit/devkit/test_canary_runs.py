"""What of a token is looked for: what no other token of its issuer has."""

from __future__ import annotations

from flux_devkit.canary import SLICE
from flux_devkit.proofs.canary import only_its_own


def test_what_all_tokens_share_is_not_looked_for() -> None:
    """The shared beginning is left out, except for slices that reach into what is the token's own."""
    shared, own, other = "s" * 40, "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    found = only_its_own({"token": shared + own}, shared + other)

    assert found == {f"token at {40 - SLICE + 1}": "s" * (SLICE - 1) + own}


def test_a_secret_of_its_own_is_looked_for_whole() -> None:
    """A marked value has nothing in common with a token."""
    assert only_its_own({"value": "canary-0123456789abcdef"}, "x" * 60) == {"value at 0": "canary-0123456789abcdef"}
