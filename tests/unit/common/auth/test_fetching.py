"""Fetching a key set from a real server that misbehaves: each way has its own end, soon and with bounded memory."""

from __future__ import annotations

import gzip
import socket
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from flux_client.keys import generate_key
from flux_common.auth.fetching import HEAD_BYTES_MAX, Fetcher, FetchFailed, verifying
from flux_common.auth.key_url import read_key_url
from flux_common.auth.keyset import JWKS_BYTES_MAX, read_jwks
from flux_devkit.certificates import Authority
from flux_devkit.identity import Answer, IdentityProvider

KEY = generate_key()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that signs the servers' certificates."""
    return Authority.create(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def provider(authority: Authority) -> Iterator[IdentityProvider]:
    """An identity provider with a good certificate."""
    with IdentityProvider(authority.server("127.0.0.1")) as running:
        running.publish(KEY)
        yield running


@pytest.fixture(scope="module")
def fetcher(authority: Authority) -> Fetcher:
    """A fetcher that trusts the authority."""
    return Fetcher(verifying(str(authority.file)))


async def failure(fetcher: Fetcher, url: str) -> str:
    """Return why a fetch fails; every failure says what to do about it."""
    with pytest.raises(FetchFailed) as failed:
        await fetcher.fetch(read_key_url(url))
    assert failed.value.next_step
    return str(failed.value)


async def test_a_key_set_is_fetched_over_tls(provider: IdentityProvider, fetcher: Fetcher) -> None:
    """The bytes are those that the server published."""
    data = await fetcher.fetch(read_key_url(provider.url))

    assert list(read_jwks(data, "jwks")) == [KEY.kid]


async def test_plain_http_is_for_the_loopback(fetcher: Fetcher) -> None:
    """In development."""
    with IdentityProvider() as plain:
        plain.publish(KEY)
        assert await fetcher.fetch(read_key_url(plain.url)) == plain.answer.body


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(provider: IdentityProvider, fetcher: Fetcher, status: int) -> None:
    """Not even to the same server: it is asked once."""
    provider.answer = Answer(b"", status, {"Location": provider.url})

    assert await failure(fetcher, provider.url) == f"answered {status}: a redirect is not followed"
    assert len(provider.asked) == 1


@pytest.mark.parametrize("status", [204, 206, 404, 500, 503])
async def test_only_200_is_an_answer(provider: IdentityProvider, fetcher: Fetcher, status: int) -> None:
    """The body of an error is no key set."""
    provider.answer = replace(provider.answer, status=status)

    assert await failure(fetcher, provider.url) == f"answered {status}"


async def test_what_is_too_large_is_given_up(provider: IdentityProvider, fetcher: Fetcher) -> None:
    """The limit itself is taken; a byte more is not, whether its length is announced or not."""
    provider.answer = Answer(b" " * JWKS_BYTES_MAX)
    assert len(await fetcher.fetch(read_key_url(provider.url))) == JWKS_BYTES_MAX

    provider.answer = Answer(b" " * (JWKS_BYTES_MAX + 1))
    assert await failure(fetcher, provider.url) == f"larger than {JWKS_BYTES_MAX} bytes"


async def test_a_head_without_end_is_given_up(provider: IdentityProvider, fetcher: Fetcher) -> None:
    """Headers have a bound of their own."""
    provider.answer = Answer(b"{}", headers={f"X-{n}": "x" * 1000 for n in range(4 * HEAD_BYTES_MAX // 1000)})

    assert await failure(fetcher, provider.url) == "the answer is not HTTP/1.1, or is cut off"


async def test_what_is_compressed_or_cut_off_is_refused(provider: IdentityProvider, fetcher: Fetcher) -> None:
    """A bomb is not unfolded, and half a set is none."""
    provider.answer = Answer(gzip.compress(b" " * 10**6), headers={"Content-Encoding": "gzip"})
    assert "compressed" in await failure(fetcher, provider.url)

    provider.answer = Answer(b"{}", length=100)
    assert "cut off" in await failure(fetcher, provider.url)


@pytest.mark.parametrize("length", [None, 10**6])
async def test_who_drips_is_timed_out(provider: IdentityProvider, fetcher: Fetcher, length: int | None) -> None:
    """The limit is for the whole answer and not for each byte."""
    provider.answer = Answer(b" " * 1000, drip_s=0.05, length=length)

    assert "no whole answer within 0.3 s" in await failure(replace(fetcher, timeout_s=0.3), provider.url)


async def test_who_says_nothing_is_timed_out(fetcher: Fetcher) -> None:
    """Also during the handshake of TLS."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        for scheme in ("http", "https"):
            url = f"{scheme}://127.0.0.1:{deaf.getsockname()[1]}/"
            assert "no whole answer" in await failure(replace(fetcher, timeout_s=0.3), url)


async def test_a_certificate_must_be_good(authority: Authority, fetcher: Fetcher, tmp_path: Path) -> None:
    """For this host, by a trusted authority, and not expired; nothing is asked of anybody else."""
    stranger = Authority.create(tmp_path / "stranger")
    for tls in (
        authority.server("id.nasa.example"),
        authority.server("127.0.0.2"),
        stranger.server("127.0.0.1"),
        authority.server("127.0.0.1", timedelta(seconds=-1)),
    ):
        with IdentityProvider(tls) as wrong:
            wrong.publish(KEY)
            assert (await failure(fetcher, wrong.url)).startswith("the certificate is refused (")
            assert wrong.asked == []


async def test_nobody_there_and_no_http_are_told(provider: IdentityProvider, fetcher: Fetcher) -> None:
    """A closed port, TLS where there is none, and what is no HTTP."""
    with IdentityProvider() as plain:
        assert "no connection" in await failure(fetcher, plain.url.replace("http:", "https:"))
    assert "no connection" in await failure(fetcher, plain.url)
    assert "no connection" in await failure(fetcher, "https://id.nasa.invalid/jwks")
