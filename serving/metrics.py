"""What the service counts, for Prometheus."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


class Metrics:
    """The counters of one service.

    Attributes:
        requests: requests answered, by route and status.
        latency: seconds from the head of a request to the end of its answer, by route.
        images: images by outcome.
        reading: seconds that a worker takes for an image.
        waiting: images waiting or being read.
        workers: workers alive.
        restarts: workers that were replaced.
    """

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter("captcha_requests", "Requests answered", ["route", "status"], registry=registry)
        self.latency = Histogram(
            "captcha_request_seconds", "Time of a request", ["route"], buckets=_SECONDS, registry=registry
        )
        self.images = Counter("captcha_images", "Images by outcome", ["outcome"], registry=registry)
        self.reading = Histogram(
            "captcha_reading_seconds", "Time of an image in a worker", buckets=_SECONDS, registry=registry
        )
        self.waiting = Gauge("captcha_waiting_images", "Images waiting or being read", registry=registry)
        self.workers = Gauge("captcha_workers", "Workers alive", registry=registry)
        self.restarts = Counter("captcha_worker_restarts", "Workers that were replaced", registry=registry)

    def text(self) -> bytes:
        """All of it in Prometheus's format."""
        return generate_latest(self._registry)


class Observer:
    """Middleware that times and counts requests, and puts the same headers on every answer.

    Args:
        app: what it wraps.
        metrics: what to count in.
        headers: put on every answer.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, headers: dict[str, str]) -> None:
        self._app = app
        self._metrics = metrics
        self._headers = [(name.lower().encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        status = 500

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *self._headers]
            await send(message)

        try:
            await self._app(scope, receive, observed)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(route, status).inc()
            self._metrics.latency.labels(route).observe(time.perf_counter() - start)
