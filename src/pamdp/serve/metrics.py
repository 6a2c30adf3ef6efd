"""What a server counts, for Prometheus.

Owns names and labels: no user and no text is among them. Knows nothing of where it is counted.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from pamdp.engines.engine import Engine

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """Counters of one server."""

    def __init__(self, engine: Engine) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "pamdp_requests", "Requests by path and status.", ["path", "status"], registry=self.registry
        )
        self.tokens = Counter("pamdp_tokens", "Tokens by model and kind.", ["model", "kind"], registry=self.registry)
        self.first = Histogram(
            "pamdp_first_token_seconds", "From a request to the first text of its stream.", ["model"],
            buckets=SECONDS, registry=self.registry,
        )  # fmt: skip
        self.whole = Histogram(
            "pamdp_reply_seconds", "From a request to its last reply.", ["model"], buckets=SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self.unrecorded = Counter(
            "pamdp_unrecorded_replies", "Replies that could not be written down.", registry=self.registry
        )
        self.queue = Gauge("pamdp_queue", "Requests that wait to be read.", registry=self.registry)
        running = Gauge("pamdp_running", "Replies that are being written.", registry=self.registry)
        running.set_function(lambda: engine.running)
        cache = engine.cache
        size = Gauge("pamdp_cache_bytes", "Size of the conversations that are kept.", registry=self.registry)
        size.set_function(lambda: cache.bytes)
        looked = Gauge("pamdp_cache_lookups", "Look-ups of conversations.", ["found"], registry=self.registry)
        looked.labels("yes").set_function(lambda: cache.hits)
        looked.labels("no").set_function(lambda: cache.misses)
