"""The event channel: a websocket on which the server says that something changed.

Every refusal is a plain 403 at the handshake, the server never pings but answers pings, and it drops whoever sends
nonsense.  The reader only sets flags and calls back synchronously: no refresh and no jitter ever holds it up.
"""

from __future__ import annotations

import asyncio
import platform
import random
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp
import orjson
from yarl import URL

from outpost.backends.authentik.client import Client, Pool, unreachable
from outpost.backends.authentik.observer import Observer

ACK, HELLO, TRIGGER_UPDATE, PROVIDER_SPECIFIC, SESSION_END = range(5)
HELLO_EVERY_S = 10.0
"""The server's record of an instance ends 15 s after its last hello."""
HANDSHAKE_TIMEOUT_S = 10.0
PROMPT_S = 1.0
"""What an attempt has left of it when the server is known to be back."""
RETRY_FIRST_S = 1.0
RETRY_LAST_S = 30.0
MAX_MESSAGE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Listeners:
    """Whom the channel tells; all are called on the event loop and must not block."""

    updated: Callable[[], None]
    session_ended: Callable[[str], None]
    connected: Callable[[bool], None]


class _Kicked(Exception):
    """An attempt was given up because the server is known to be back."""


class EventChannel:
    """Keeps the channel of one outpost open. `run` ends only when cancelled."""

    def __init__(
        self,
        pool: Pool,
        client: Client,
        outpost_pk: Callable[[], str],
        instance: str,
        listeners: Listeners,
        observer: Observer,
        service: str,
    ) -> None:
        self.is_connected = False
        self.problem = ""
        """Why it is not connected."""
        self._pool = pool
        self._client = client
        self._outpost_pk = outpost_pk
        self._instance = instance
        self._listeners = listeners
        self._observer = observer
        self._service = service
        self._random = random.Random()  # noqa: S311 - jitter
        self._kicked = asyncio.Event()
        self._connecting: asyncio.Timeout | None = None

    def kick(self) -> None:
        """The server is known to be back: neither pause any longer nor wait for whom it was sought at."""
        self._kicked.set()
        deadline = None if self._connecting is None else self._connecting.when()
        if self._connecting is not None and deadline is not None:
            now = asyncio.get_running_loop().time()
            self._connecting.reschedule(max(now, deadline - HANDSHAKE_TIMEOUT_S + PROMPT_S))

    async def run(self) -> None:
        """Connect, listen, reconnect."""
        attempt = failures = 0
        while True:
            was_up = False
            try:
                await self._session(attempt)
                problem = "closed by the server"
            except _Kicked:
                problem = self.problem
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as exc:
                problem = _words(exc)
            except Exception as exc:  # a bug must not end the channel for good
                problem = f"{type(exc).__name__}: {exc}"
                self._observer.log("error", "the event channel failed", service=self._service, error=problem)
            finally:
                was_up = self.is_connected
                self._tell(False)
            attempt += 1
            failures = 0 if was_up else failures + 1
            if problem != self.problem or was_up:
                self._observer.log("warning", f"no event channel: {problem}", service=self._service)
            self.problem = problem
            delay = min(RETRY_LAST_S, RETRY_FIRST_S * 2 ** min(failures, 10))
            await self._pause(delay * self._random.uniform(0.5, 1.0))

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._kicked.wait()
        except TimeoutError:
            pass
        self._kicked.clear()

    async def _session(self, attempt: int) -> None:
        query = (("instance_uuid", self._instance), ("attempt", str(attempt)))
        url = self._pool.address.websocket(self._outpost_pk(), query)
        async with self._pool.apart() as session, await self._connected(session, url) as channel:
            hello = asyncio.create_task(self._greet(channel), name=f"hello-{self._service}")
            try:
                async for message in channel:
                    if message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                        self._receive(message.data)
            finally:
                hello.cancel()
                await asyncio.gather(hello, return_exceptions=True)

    async def _connected(self, session: aiohttp.ClientSession, url: URL) -> aiohttp.ClientWebSocketResponse:
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT_S) as self._connecting:
                return await session.ws_connect(
                    url, headers=self._client.headers(), heartbeat=HELLO_EVERY_S, max_msg_size=MAX_MESSAGE
                )
        except TimeoutError as exc:
            if self._kicked.is_set():
                raise _Kicked from exc
            raise
        finally:
            self._connecting = None

    async def _greet(self, channel: aiohttp.ClientWebSocketResponse) -> None:
        """Say hello at once and every 10 s."""
        while True:
            await channel.send_str(self._hello())
            await asyncio.sleep(HELLO_EVERY_S)

    def _hello(self) -> str:
        args = {
            "version": self._client.version,
            "buildHash": "",
            "uuid": self._instance,
            "hostname": socket.gethostname(),
            "golangVersion": f"python{platform.python_version()}",
            "opensslEnabled": True,
            "opensslVersion": ssl.OPENSSL_VERSION,
            "fipsEnabled": False,
        }
        return orjson.dumps({"instruction": HELLO, "args": args}).decode()

    def _receive(self, data: str | bytes) -> None:
        try:
            content = orjson.loads(data)
        except orjson.JSONDecodeError:
            content = None
        if not isinstance(content, dict):
            self._observer.log("debug", "an event that is no JSON object was ignored", service=self._service)
            return
        self._tell(True)  # whatever it says, it is the server's answer to our hello
        args = content.get("args")
        match content.get("instruction"):
            case 2:
                self._listeners.updated()
            case 4:
                handle = args.get("session_id") if isinstance(args, dict) else None
                if isinstance(handle, str) and handle:
                    self._listeners.session_ended(handle)

    def _tell(self, is_connected: bool) -> None:
        if is_connected != self.is_connected:
            self.is_connected = is_connected
            if is_connected:
                self.problem = ""
            self._observer.connection(self._service, is_connected)
            self._listeners.connected(is_connected)


def _words(exc: Exception) -> str:
    if isinstance(exc, aiohttp.WSServerHandshakeError):
        return f"it is refused (HTTP {exc.status}); a proxy in front of the server has to pass websockets on"
    if isinstance(exc, aiohttp.ClientConnectorError) and not isinstance(exc, aiohttp.ClientSSLError):
        return unreachable(exc)
    if isinstance(exc, TimeoutError):
        return f"no answer within {HANDSHAKE_TIMEOUT_S:g} s"
    return str(exc) or type(exc).__name__
