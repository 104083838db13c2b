"""The limits, and that they belong to the version."""

from __future__ import annotations

from dataclasses import replace

from flux_transform.domain.limits import DEFAULT_LIMITS
from flux_transform.version import transform_version


def test_defaults_are_those_of_the_design() -> None:
    """64 objects or 64 MiB a slice, 250 megapixels, 2 GiB, 60 s."""
    limits = DEFAULT_LIMITS

    assert (limits.slice_objects_max, limits.slice_bytes_max) == (64, 64 * 2**20)
    assert limits.image_pixels_max == 250_000_000
    assert (limits.address_space_bytes_max, limits.task_wall_seconds_max) == (2 * 2**30, 60)


def test_other_limits_are_another_version() -> None:
    """Limits decide what a dataset holds, so a worker with others must not continue another's chain."""
    other = transform_version(replace(DEFAULT_LIMITS, image_pixels_max=1))

    assert other != transform_version()
    assert len(other) <= 256
