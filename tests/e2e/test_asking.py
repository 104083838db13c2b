"""What the end-to-end tests, the proofs and the benchmarks take for the end of a run."""

from __future__ import annotations

import asyncio
import secrets

from flux_client.subscriber import FluxSubscriber
from flux_devkit.asking import a_producer, a_request, ask, ends, texts
from flux_devkit.flux import Flux

AGENCY = "nasa"


async def test_an_answer_to_a_command_is_not_the_end_of_its_run(flux: Flux) -> None:
    """Both come on the completions topic; the refused command comes first, for nobody works while it is answered."""
    request_id = f"asking-{secrets.token_hex(3)}"
    source = texts(flux.folder("archives", AGENCY, request_id), 3)
    flux.services["transform"].pause()
    try:
        (decision,) = await ask(flux, AGENCY, a_request(flux, AGENCY, request_id, source))
        async with (
            FluxSubscriber(AGENCY, flux.installation.kafka()) as subscriber,
            a_producer(flux, AGENCY) as producer,
            asyncio.timeout(30),
        ):
            answers = subscriber.completions()
            await answers.poll()
            await producer.command(request_id, "resume", "it was never paused")
            while (answer := await answers.poll()) is None:
                pass
    finally:
        flux.services["transform"].resume()
    run_id = decision.submitted.run_id
    found = await ends(flux, AGENCY, [run_id])

    assert answer.type == "flux.run.command-refused.v1"
    assert found[run_id].type == "flux.run.completed.v1"
