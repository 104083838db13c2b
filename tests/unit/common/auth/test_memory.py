"""The memory of verified tokens: bounded, per generation, and no longer than a token lives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flux_common.auth import VerifiedTokens
from flux_common.auth.claims import Claims, read_claims

if TYPE_CHECKING:
    from conftest import World


def claims(world: World) -> Claims:
    """Return the claims of a good token."""
    return read_claims(world.payload(), "kid")


def test_what_was_remembered_is_recalled_until_it_expires(world: World) -> None:
    """`exp` itself is too late."""
    memory, kept = VerifiedTokens(), claims(world)
    memory.recall(b"a", "1", world.now_s)
    memory.remember(b"a", kept)

    assert kept is memory.recall(b"a", "1", kept.exp - 0.001)
    assert memory.recall(b"b", "1", world.now_s) is None
    assert memory.recall(b"a", "1", kept.exp) is None
    assert len(memory) == 0


def test_another_generation_forgets_everything(world: World) -> None:
    """A change of keys or registry empties the memory."""
    memory = VerifiedTokens()
    memory.recall(b"a", "1", world.now_s)
    memory.remember(b"a", claims(world))

    assert memory.recall(b"a", "2", world.now_s) is None
    assert memory.recall(b"a", "1", world.now_s) is None
    assert len(memory) == 0


def test_the_entry_unused_for_longest_goes_first(world: World) -> None:
    """The memory never grows beyond its bound."""
    memory, kept = VerifiedTokens(entries_max=2), claims(world)
    memory.recall(b"a", "1", world.now_s)
    for name in (b"a", b"b"):
        memory.remember(name, kept)
    memory.recall(b"a", "1", world.now_s)
    memory.remember(b"c", kept)

    assert [kept, None, kept] == [memory.recall(name, "1", world.now_s) for name in (b"a", b"b", b"c")]
    assert len(memory) == 2
