"""The HTTP port: alive, ready, metrics. Plain HTTP for probes and scrapers; takes no input and tells no secrets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import h11

PING = "/outpost.goauthentik.io/ping"
READY = "/-/ready"
METRICS = "/metrics"
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
TEXT_TYPE = "text/plain; charset=utf-8"
STOP_S = 2.0
"""How long a stop waits for a scrape that is being answered."""
CLIENT_S = 30.0
"""A client that says or takes nothing for this long is cut off."""
CONNECTIONS = 64
"""Open at a time; probes and scrapers are few."""
HEAD_OCTETS = 16_384


@dataclass(frozen=True, slots=True)
class Answer:
    """A response; content_type: empty when there is no body."""

    status: int
    body: bytes = b""
    content_type: str = ""
    allow: str = ""


class HttpServer:
    """Serves probes and metrics on bound sockets.

    readiness: per service an empty string, or the reason why it is not ready; exposition: the metrics in
    Prometheus text format.
    """

    def __init__(self, readiness: Callable[[], Mapping[str, str]], exposition: Callable[[], Awaitable[bytes]]) -> None:
        self._readiness = readiness
        self._exposition = exposition
        self._servers: list[asyncio.Server] = []
        self._clients: set[asyncio.Task[None]] = set()

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Answer on listening, non-blocking sockets; they are closed by `stop`."""
        for sock in sockets:
            self._servers.append(await asyncio.start_server(self._serve, sock=sock, limit=HEAD_OCTETS))

    async def stop(self) -> None:
        """Close everything; idempotent."""
        servers, self._servers = self._servers, []
        for server in servers:
            server.close()
        if self._clients:
            await asyncio.wait(tuple(self._clients), timeout=STOP_S if servers else 0)
        clients = tuple(self._clients)
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._clients) >= CONNECTIONS:
            writer.close()
            return
        self._clients.add(task)
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_OCTETS)
        try:
            while await self._exchange(connection, reader, writer):
                connection.start_next_cycle()
        except h11.RemoteProtocolError as error:
            if connection.our_state is h11.IDLE or connection.our_state is h11.SEND_RESPONSE:
                await self._send(connection, writer, Answer(error.error_status_hint), is_last=True, has_body=True)
        except (OSError, TimeoutError):
            pass  # the client is gone, or as good as gone
        finally:
            self._clients.discard(task)
            writer.close()

    async def _exchange(
        self, connection: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """One request and its answer; whether another may follow. Raises RemoteProtocolError, OSError."""
        request: h11.Request | None = None
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                async with asyncio.timeout(CLIENT_S):
                    connection.receive_data(await reader.read(HEAD_OCTETS))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.ConnectionClosed):
                return False
            elif isinstance(event, h11.EndOfMessage):
                break
        assert request is not None
        # A stop waits for the answer that is being given and for no other.
        is_last = not self._servers
        answer = await self._answer(request)
        await self._send(connection, writer, answer, is_last=is_last, has_body=request.method != b"HEAD")
        return not is_last and connection.our_state is h11.DONE and connection.their_state is h11.DONE

    async def _send(
        self, connection: h11.Connection, writer: asyncio.StreamWriter, answer: Answer, *, is_last: bool, has_body: bool
    ) -> None:
        headers = [("Content-Type", answer.content_type)] if answer.content_type else []
        headers += [("Allow", answer.allow)] if answer.allow else []
        headers += [("Content-Length", str(len(answer.body)))] if answer.status != 204 else []
        headers += [("Connection", "close")] if is_last else []
        out = connection.send(h11.Response(status_code=answer.status, headers=headers)) or b""
        if has_body:
            out += connection.send(h11.Data(data=answer.body)) or b""
        out += connection.send(h11.EndOfMessage()) or b""
        writer.write(out)
        async with asyncio.timeout(CLIENT_S):
            await writer.drain()

    async def _answer(self, request: h11.Request) -> Answer:
        path = request.target.partition(b"?")[0].decode("ascii", "replace")
        if path == PING:
            return Answer(204)
        if request.method not in {b"GET", b"HEAD"}:
            return Answer(405, allow="GET, HEAD")
        if path == READY:
            return self._ready()
        if path == METRICS:
            return Answer(200, await self._exposition(), METRICS_TYPE)
        return Answer(404)

    def _ready(self) -> Answer:
        """200 when every service that is served is ready, else 503; either way one line per service."""
        states = self._readiness()
        text = "".join(f"{service}: {reason or 'ready'}\n" for service, reason in states.items())
        return Answer(503 if any(states.values()) or not states else 200, text.encode(), TEXT_TYPE)
