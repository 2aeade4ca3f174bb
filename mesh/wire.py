"""What both ends of a call must agree on: header names and limits."""

REQUEST_ID_KEY = "x-request-id"
TRACEPARENT_KEY = "traceparent"

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
# How far answers of many rows are filled, and how large a batch may be: its answer is larger.
FILL_BYTES = MAX_MESSAGE_BYTES * 3 // 4
# Error details travel in trailers; gRPC's default of 8 KiB is tight for a list of violations.
MAX_METADATA_BYTES = 32 * 1024

# A server tolerates pings this often; clients ping less often than that.
KEEPALIVE_TOLERATED_MS = 10_000
KEEPALIVE_OPTIONS = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
)
SIZE_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
)
