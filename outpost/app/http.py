"""The HTTP port: alive, ready, metrics. Plain HTTP for probes and scrapers; takes no input and tells no secrets."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence

from aiohttp import web

PING = "/outpost.goauthentik.io/ping"
READY = "/-/ready"
METRICS = "/metrics"
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
STOP_S = 2.0
"""How long a stop waits for a scrape that is being answered."""


class HttpServer:
    """Serves probes and metrics on bound sockets.

    readiness: per service an empty string, or the reason why it is not ready; exposition: the metrics in
    Prometheus text format.
    """

    def __init__(self, readiness: Callable[[], Mapping[str, str]], exposition: Callable[[], bytes]) -> None:
        self._readiness = readiness
        self._exposition = exposition
        self._runner: web.ServerRunner | None = None

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Answer on listening, non-blocking sockets; they are closed by `stop`."""
        self._runner = web.ServerRunner(web.Server(self._answer, access_log=None), shutdown_timeout=STOP_S)
        await self._runner.setup()
        for sock in sockets:
            await web.SockSite(self._runner, sock).start()

    async def stop(self) -> None:
        """Close everything; idempotent."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == PING:
            return web.Response(status=204)
        if request.method not in {"GET", "HEAD"}:
            return web.Response(status=405, headers={"Allow": "GET, HEAD"})
        if request.path == READY:
            return self._ready()
        if request.path == METRICS:
            return web.Response(body=self._exposition(), headers={"Content-Type": METRICS_TYPE})
        return web.Response(status=404)

    def _ready(self) -> web.Response:
        """200 when every service that is served is ready, else 503; either way one line per service."""
        states = self._readiness()
        text = "".join(f"{service}: {reason or 'ready'}\n" for service, reason in states.items())
        return web.Response(status=503 if any(states.values()) or not states else 200, text=text)
