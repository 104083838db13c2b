"""Every metric of Flux, named here once; dashboards, alerts and tests take the names from here.

Prefix `flux_`, base units (seconds, bytes, records), no run, request or item as a label: labels are topics, Kafka
partitions, kinds, codes and agencies, whose number is bounded. Counted per batch, never per record.
`flux_backstop_mends_total` and `flux_isolation_violations_total` must stay 0.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

REGISTRY: Final = CollectorRegistry(auto_describe=True)
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

SHORT: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
LONG: Final = (0.1, 0.5, 1, 5, 15, 30, 60, 120, 300, 600, 1800, 3600)
SIZES: Final = (1, 5, 10, 50, 100, 500, 1000, 2000, 5000, 10000)
LANE: Final = ("topic", "kafka_partition")

ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)


def _counter(name: str, meaning: str, *labels: str) -> Counter:
    return Counter(name, meaning, labels, registry=REGISTRY)


def _gauge(name: str, meaning: str, *labels: str) -> Gauge:
    return Gauge(name, meaning, labels, registry=REGISTRY)


def _histogram(name: str, meaning: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
    return Histogram(name, meaning, labels, buckets=buckets, registry=REGISTRY)


# The process.
build_info = Info("flux_build", "Service and version of this process.", registry=REGISTRY)
ready = _gauge("flux_ready", "1 while the process is ready.")
event_loop_lag_seconds = _histogram("flux_event_loop_lag_seconds", "Delay of a timer of the event loop.", SHORT)
dependency_waits = _counter("flux_dependency_wait_tries_total", "Tries that did not reach a dependency.", "dependency")
pool_connections = _gauge("flux_pool_connections", "Connections of the PostgreSQL pool.", "state")
pool_wait_seconds = _histogram("flux_pool_wait_seconds", "Wait for a connection of the pool.", SHORT)

# Lanes.
lane_lag_records = _gauge("flux_lane_lag_records", "Offsets between a lane and the end of its log.", *LANE)
lane_lag_seconds = _gauge("flux_lane_lag_seconds", "Age of the last record that a lane applied, while it lags.", *LANE)
lanes_owned = _gauge("flux_lanes_owned", "Lanes that this process has taken.", "topic")
lanes_untaken = _gauge("flux_lanes_untaken", "Assigned lanes that are not taken, by why.", "topic", "reason")
lanes_stopped = _gauge("flux_lanes_stopped", "Lanes that wait for an operator (LANE_DATA_LOST, …).", *LANE, "code")
lane_takes = _counter("flux_lane_takes_total", "Lanes taken.", "topic")
lane_gap_offsets = _counter(
    "flux_lane_gap_offsets_total", "Offsets without a record on topics that no transaction writes; must stay 0."
)
batches = _counter(
    "flux_batches_total", "Batches by what became of them: applied or an error class.", "topic", "outcome"
)
batch_records = _histogram("flux_batch_records", "Records in a batch.", SIZES, "topic")
batch_duration_seconds = _histogram("flux_batch_duration_seconds", "From hand-over to commit.", SHORT, "topic")
dead_letters = _counter("flux_dead_letters_total", "Records that were dead-lettered.", "topic", "code")
dead_letter_ratio = _gauge("flux_dead_letter_ratio", "Dead letters among a lane's last 1,000 records.", *LANE)
isolation_violations = _counter(
    "flux_isolation_violations_total", "Accesses to another agency that the database refused; must stay 0."
)
topics_unregistered = _gauge("flux_topics_unregistered", "Request topics that belong to no registered agency.")

# The outbox and its relay.
outbox_oldest_age_seconds = _gauge("flux_outbox_oldest_age_seconds", "Age of the oldest row not yet sent.", "shard")
outbox_parked_rows = _gauge(
    "flux_outbox_parked_rows", "Rows set aside for an operator; 100,000 are counted at most.", "shard"
)
relay_transactions = _counter("flux_relay_transactions_total", "Kafka transactions of the relay.", "shard", "outcome")
relay_records = _counter("flux_relay_records_total", "Records that the relay committed.", "shard")
relay_leader = _gauge("flux_relay_leader", "1 while this process relays the shard.", "shard")

# Ingest.
decisions = _counter("flux_decisions_total", "Decisions on requests and commands.", "outcome", "code")
decision_latency_seconds = _histogram(
    "flux_decision_latency_seconds", "From the broker's timestamp to the commit of the decision.", SHORT
)
verification_failures = _counter("flux_verification_failures_total", "Tokens that did not verify.", "code")
keys_age_seconds = _gauge("flux_keys_age_seconds", "Age of an issuer's keys.", "issuer")
key_fetches = _counter(
    "flux_key_fetches_total", "Fetches of key sets: changed, same, refused, failed.", "issuer", "outcome"
)
keys_shared = _gauge("flux_keys_shared", "Public keys that two issuers have; must stay 0.", "issuer", "other")
intake_held = _counter(
    "flux_intake_held_total", "Batches that had to wait because the seal of the agency's facts lags.", "agency_id"
)
seal_watermark = _gauge(
    "flux_seal_watermark_timestamp_seconds",
    "Up to when the facts of an audit lane are sealed, as ingest hears it (Unix time).",
    "kafka_partition",
)

# Checkpoint.
progress_reports = _counter(
    "flux_progress_reports_total", "Reports by verdict: applied, duplicate, fenced, dead_letter.", "verdict"
)
digest_conflicts = _counter("flux_digest_conflicts_total", "Duplicate slices that carry another digest.")
dispatches = _counter("flux_dispatches_total", "Items dispatched.", "kind")
stalls = _counter("flux_stalls_total", "Items dispatched anew because they fell silent.", "kind")
backstop_mends = _counter("flux_backstop_mends_total", "What only the backstop found; must stay 0.", "kind")
partition_duration_seconds = _histogram(
    "flux_partition_duration_seconds", "From dispatch to the end of an item.", LONG, "kind", "outcome"
)
runs_ended = _counter("flux_runs_ended_total", "Run attempts that ended.", "state", "cause")
runs_open = _gauge("flux_runs_open", "Runs that have not ended.", "state")
run_oldest_silence_seconds = _gauge("flux_run_oldest_silence_seconds", "Longest time an open run stood still.")
integrity_failures = _counter("flux_integrity_failures_total", "Chains or plans that contradict their digest.", "code")

# Transform.
objects = _counter("flux_objects_total", "Objects worked, by outcome: written or rejected.", "content_type", "outcome")
rejects = _counter("flux_rejects_total", "Objects rejected.", "code")
slice_duration_seconds = _histogram("flux_slice_duration_seconds", "From fetch to report.", LONG, "content_type")
bytes_read = _counter("flux_bytes_read_total", "Bytes of source objects read.")
bytes_written = _counter("flux_bytes_written_total", "Bytes of outputs written.")
items_held = _gauge("flux_items_held", "Work items in this worker's hands.", "state")
items_fenced = _counter("flux_items_fenced_total", "Items dropped because they were fenced.")
worker_deaths = _counter("flux_worker_deaths_total", "Decoder processes that died or were killed.", "why")

# Audit.
facts_sealed = _counter("flux_facts_sealed_total", "Facts sealed, by type: fact, unreadable, conflict.", "type")
seal_lag_seconds = _gauge("flux_seal_lag_seconds", "Age of the oldest fact not under a signed head.", "kafka_partition")
tree_size_leaves = _gauge("flux_tree_size_leaves", "Leaves of an agency's log.", "agency_id")
tree_heads_signed = _counter("flux_tree_heads_signed_total", "Tree heads signed.")
signing_refused = _counter("flux_signing_refused_total", "Heads not signed: FORK, DATABASE_BEHIND_KAFKA.", "code")


def exposition() -> bytes:
    """Return every metric in Prometheus' text format 0.0.4."""
    return generate_latest(REGISTRY)


def names() -> list[str]:
    """Return the name of every Flux series as a query has to write it, sorted."""
    return sorted(
        {
            sample
            for family in REGISTRY.collect()
            if family.name.startswith("flux_")
            for sample in _series(family.name, family.type)
        }
    )


def _series(name: str, kind: str) -> list[str]:
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"], "info": ["_info"]}
    return [name + suffix for suffix in suffixes.get(kind, [""])]
