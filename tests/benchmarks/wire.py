"""Names and channel options that the processes of the benchmark share."""

from __future__ import annotations

SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"
METHOD = "Export"
RECEIVED = "Received"

_MAX_MESSAGE = 64 << 20

# What the stage sets on its server and its channel, as far as it bears on a connection that works, so that the
# difference between relay and stage is not one of settings. Written out: an older stage is measured by the same yard.
SERVER_OPTIONS = (
    ("grpc.max_receive_message_length", _MAX_MESSAGE),
    ("grpc.max_send_message_length", 4 << 20),
    ("grpc.max_concurrent_streams", 1000),
    ("grpc.max_metadata_size", 16 << 10),
    ("grpc.absolute_max_metadata_size", 32 << 10),
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)
CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", 4 << 20),
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Otherwise channels to one address share a connection within a process.
    ("grpc.use_local_subchannel_pool", 1),
)


def path(method: str) -> str:
    """Return a method's full name as a channel wants it."""
    return f"/{SERVICE}/{method}"
