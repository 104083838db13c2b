"""An agency that wants nothing decided that is not sealed soon, where audit really runs."""

from __future__ import annotations

from flux_devkit.asking import a_request, ask, ends, texts
from flux_devkit.flux import Flux


async def test_a_run_of_an_agency_that_requires_audit_completes(flux: Flux) -> None:
    """Audit says by itself how far it is, of a quiet lane too: the request is accepted, and the run ends with a receipt."""
    agency = next(one.agency_id for one in flux.installation.agencies if one.audit_required)
    request = a_request(flux, agency, "sealed", texts(flux.folder("archives", agency, "sealed"), 3))
    (decision,) = await ask(flux, agency, request)
    end = (await ends(flux, agency, [decision.submitted.run_id], proven=True))[decision.submitted.run_id]

    assert (decision.accepted, end.type) == (True, "flux.run.completed.v1")
    assert end.receipt is not None
