"""Every limit of the data plane, with its unit in its name.

Most of them decide what a dataset contains (where slices are cut, which objects are rejected), so they belong to the
transform version: `version.transform_version` names a set of limits that is not the default one. The limits on time
and memory are the last line only; each decoder has a check of its own that gives the same verdict on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass

MIB = 2**20
GIB = 2**30


@dataclass(frozen=True, slots=True)
class Limits:
    """What one object, slice, plan or task may cost.

    A task that works a whole slice is killed after `task_wall_seconds_max`. An object worked alone is killed, and
    rejected, after `object_cpu_seconds_max` of processor time, which does not depend on what else the machine does;
    `object_wall_seconds_max` is the machine's fault, not the object's, and a reason to try the item again.
    `address_space_bytes_max` counts from what a worker process takes before its first object.
    """

    slice_objects_max: int = 64
    slice_bytes_max: int = 64 * MIB
    object_bytes_max: int = 256 * MIB
    image_pixels_max: int = 250_000_000
    image_frames_max: int = 1_000
    document_pages_max: int = 10_000
    unfolded_bytes_max: int = 256 * MIB
    text_chars_max: int = 32 * MIB
    combining_run_max: int = 4_096
    address_space_bytes_max: int = 2 * GIB
    task_wall_seconds_max: int = 60
    object_cpu_seconds_max: int = 60
    object_wall_seconds_max: int = 240
    plan_objects_max: int = 5_000_000
    plan_partitions_max: int = 50_000
    gather_heads_max: int = 1_000


DEFAULT_LIMITS = Limits()
