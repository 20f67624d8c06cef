"""The HTTP client: one warm pool per purpose, deadlines everywhere, bounded retries with full jitter.

REST requests carry the outpost's token as Bearer; requests on behalf of a user who logs in never do (`flow.py`).
"""

from __future__ import annotations

import asyncio
import os
import random
import ssl
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self

import aiohttp
import orjson
from aiohttp.client_exceptions import UnixClientConnectorError
from yarl import URL

from outpost.backends.authentik.address import Address, Query
from outpost.backends.authentik.settings import AuthentikSettings
from outpost.backends.authentik.sockets import SocketFactory
from outpost.errors import BackendError, BackendTimeout, BackendUnavailable
from outpost.identity import Secret

MAX_BODY = 64 * 1024 * 1024
"""Octets of one response; a page of 100 users with their groups takes some hundred thousand."""
MAX_FLOW_BODY = 1024 * 1024
RETRY_BASE_S = 0.2
RETRY_CAP_S = 2.0
NAMES_S = 1
"""How long an address of the server's name is remembered: many logins at a time are one question."""
USER_AGENT = "goauthentik.io/outpost/"
"""The server knows outposts by this prefix."""


class TokenRefused(BackendError):
    """The server does not accept the outpost's token, or it may not do this (HTTP 401 or 403)."""

    metric = "backend_token"


class NotFound(BackendError):
    """HTTP 404. `is_api`: said by the API itself (JSON), not by a server that has no such address (HTML)."""

    def __init__(self, message: str, *, is_api: bool) -> None:
        self.is_api = is_api
        super().__init__(message)


class NoJson(BackendUnavailable):
    """An answer that the API would not give: another program's, or one that was cut off."""


class RequestRefused(BackendError):
    """HTTP 400: the server understands the request and does not like a value in it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A response read to its end."""

    status: int
    body: bytes
    set_cookies: tuple[str, ...]
    location: str
    is_json: bool
    date: str = ""
    """The server's clock, as its header tells it."""
    is_packed: bool = False
    """`body` is still gzip (RFC 1952), as it travelled."""

    @property
    def made_at(self) -> float | None:
        """The same in seconds since the epoch, whole ones, rounded down; None when the server does not tell."""
        try:
            return parsedate_to_datetime(self.date).timestamp()
        except (ValueError, OverflowError):
            return None

    def unpacked(self, what: str, limit: int) -> Answer:
        """The same with its body as the server made it. Raises BackendUnavailable and, beyond `limit`, BackendError."""
        if not self.is_packed:
            return self
        stream = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        try:
            octets = stream.decompress(self.body, limit + 1)
        except zlib.error as exc:
            raise NoJson(f"{what}: the server's answer is no gzip") from exc
        if len(octets) > limit:
            raise BackendError(f"{what}: the server's answer is larger than {limit} octets")
        if not stream.eof or stream.unused_data:
            raise NoJson(f"{what}: the server's answer is cut off or no gzip")
        return replace(self, body=octets, is_packed=False)

    def json(self, what: str) -> Any:
        """The decoded body. Raises BackendUnavailable."""
        if not self.is_json:
            raise BackendUnavailable(f"{what}: the server's answer is no JSON but of another content type")
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError as exc:
            raise BackendUnavailable(f"{what}: the server's answer is no JSON ({len(self.body)} octets)") from exc


class Pool:
    """A keep-alive connection pool to the one server."""

    def __init__(self, settings: AuthentikSettings, *, limit: int) -> None:
        self._address = settings.address()
        self._proxy = self._address.proxy()
        # The callers' deadlines come first; with this not even a caller without one waits for ever.
        longest_s = max(settings.request_timeout_s, settings.login_timeout_s, settings.duo_timeout_s)
        self._timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=settings.connect_timeout_s, sock_read=longest_s + 1.0
        )
        self._insecure = settings.insecure
        self._sockets = SocketFactory(settings.connect_timeout_s)
        self._limit = limit
        self._under_way: Counter[aiohttp.ClientSession] = Counter()
        """Requests by session: the present one, and those that were given up."""
        self._closing: set[asyncio.Task[None]] = set()
        self._session: aiohttp.ClientSession | None = None

    @property
    def address(self) -> Address:
        """Where the requests go."""
        return self._address

    def session(self) -> aiohttp.ClientSession:
        """The client session, opened on first use on the running loop."""
        if self._session is None:
            self._session = self.apart()
        return self._session

    def doubt(self, session: aiohttp.ClientSession | None = None) -> None:
        """Let later requests begin with no connection and no address; what is under way goes on.

        Connections that lie idle may lead to where nobody is any more. session: the one that is doubted, by default
        the present one.
        """
        if session is None or session is self._session:
            session, self._session = self._session, None
            if session is not None and not self._under_way[session]:
                self._close(session)

    def _close(self, session: aiohttp.ClientSession) -> None:
        del self._under_way[session]
        task = asyncio.get_running_loop().create_task(session.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def apart(self) -> aiohttp.ClientSession:
        """A session of the caller's own, who closes it: it begins with no connection, perhaps to where nobody is."""
        # trust_env would let aiohttp add Authorization from ~/.netrc: the proxy is looked up here instead.
        return aiohttp.ClientSession(
            connector=self._new_connector(),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=self._timeout,
            proxy=self._proxy,
            auto_decompress=True,
        )

    def _new_connector(self) -> aiohttp.BaseConnector:
        if self._address.socket:
            return aiohttp.UnixConnector(self._address.socket, limit=self._limit, keepalive_timeout=30)
        trust: ssl.SSLContext | bool = not self._insecure
        return aiohttp.TCPConnector(
            ssl=trust,
            limit=self._limit,
            keepalive_timeout=30,
            ttl_dns_cache=NAMES_S,
            socket_factory=self._sockets,
        )

    async def request(
        self,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        what: str,
        *,
        body: bytes | None = None,
        limit: int,
        packed: bool = False,
    ) -> Answer:
        """One request, read to its end, redirects not followed. Raises BackendUnavailable; the caller sets a deadline.

        what: names the request in messages; never holds a secret.  packed: a compressed body is handed over as it is.
        """
        session = self.session()
        self._under_way[session] += 1
        try:
            async with session.request(
                method, url, headers=headers, data=body, allow_redirects=False, auto_decompress=not packed
            ) as found:
                octets = await _read(found, limit, what)
                known = found.headers
                return Answer(
                    found.status,
                    octets,
                    tuple(known.getall("Set-Cookie", ())),
                    known.get("Location", ""),
                    "json" in known.get("Content-Type", ""),
                    known.get("Date", ""),
                    packed and _is_packed(known.get("Content-Encoding", ""), what),
                )
        except aiohttp.ClientConnectorCertificateError as exc:
            reason = exc.certificate_error
            raise BackendUnavailable(f"{what}: the server's certificate is not trusted: {reason}") from exc
        except aiohttp.ClientSSLError as exc:
            raise BackendUnavailable(f"{what}: TLS with the server failed: {_tls_words(exc)}") from exc
        except aiohttp.ClientConnectorError as exc:
            self.doubt(session)
            raise BackendUnavailable(f"{what}: {unreachable(exc)}") from exc
        except aiohttp.ConnectionTimeoutError as exc:
            self.doubt(session)
            raise BackendTimeout(f"{what}: the server does not take connections") from exc
        except TimeoutError as exc:
            raise BackendTimeout(f"{what}: the server does not answer") from exc
        except (aiohttp.ClientError, OSError) as exc:
            self.doubt(session)
            raise BackendUnavailable(f"{what}: {str(exc) or type(exc).__name__}") from exc
        finally:
            self._under_way[session] -= 1
            if session is not self._session and not self._under_way[session]:
                self._close(session)

    async def close(self) -> None:
        """Close the pool; idempotent."""
        present, self._session = self._session, None
        for session in {*self._under_way, *(() if present is None else (present,))}:
            self._close(session)
        await asyncio.gather(*self._closing)


def unreachable(error: aiohttp.ClientConnectorError) -> str:
    """Why no connection came about."""
    host = f"[{error.host}]" if ":" in error.host else error.host
    where = error.path if isinstance(error, UnixClientConnectorError) else f"{host}:{error.port}"
    number = error.os_error.errno or 0
    # The loop's own text repeats the address; those of name resolution have negative numbers.
    why = os.strerror(number) if number > 0 else error.os_error.strerror
    return f"cannot connect to {where}: {why or error.os_error}"


def _tls_words(error: aiohttp.ClientSSLError) -> str:
    if "WRONG_VERSION_NUMBER" in str(error.os_error):
        return "it does not speak TLS at this port; is it http:// in AUTHENTIK_HOST?"
    return str(error.os_error) or str(error)


async def _read(response: aiohttp.ClientResponse, limit: int, what: str) -> bytes:
    size = response.content_length
    if size is not None and size <= limit and "Content-Encoding" not in response.headers:
        return await response.read()
    found, size = [], 0
    async for chunk in response.content.iter_any():
        found.append(chunk)
        size += len(chunk)
        if size > limit:
            raise BackendError(f"{what}: the server's answer is larger than {limit} octets")
    return b"".join(found)


def _is_packed(encoding: str, what: str) -> bool:
    """Raises BackendUnavailable for an encoding that was not asked for."""
    match encoding.strip().lower():
        case "" | "identity":
            return False
        case "gzip" | "x-gzip":
            return True
    raise BackendUnavailable(f"{what}: the server's answer comes in an encoding that was not asked for")


class Client:
    """REST requests with one outpost's token."""

    def __init__(self, pool: Pool, token: Secret, settings: AuthentikSettings, version: str) -> None:
        self._pool = pool
        self._settings = settings
        self._random = random.Random()  # noqa: S311 - jitter
        self._headers = {
            "Authorization": f"Bearer {token.reveal_text()}",
            "Accept": "application/json",
            "Accept-Encoding": "gzip",
        }
        self.version = version

    @property
    def address(self) -> Address:
        """Where the requests go."""
        return self._pool.address

    @property
    def version(self) -> str:
        """The version that we say we are."""
        return self._version

    @version.setter
    def version(self, version: str) -> None:
        self._version = version
        self._headers["User-Agent"] = USER_AGENT + version

    async def get(self, path: str, query: Query = ()) -> Any:
        """The decoded answer of an API path.

        Connection failures, time-outs, HTTP 429 and 5xx and undecodable answers are tried again, a bounded number of
        times. Raises TokenRefused, NotFound, RequestRefused, BackendTimeout, BackendUnavailable, BackendError.
        """
        return decode(await self.get_answer(path, query), f"GET {path}")

    async def get_answer(self, path: str, query: Query = ()) -> Answer:
        """As `get`, with the body not decoded, but known to end like JSON unless it is packed."""
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self._once(path, query)
            except (BackendUnavailable, BackendTimeout):
                if attempt >= self._settings.attempts:
                    raise
            await asyncio.sleep(self._random.uniform(0, min(RETRY_CAP_S, RETRY_BASE_S * 2**attempt)))

    async def _once(self, path: str, query: Query) -> Answer:
        what = f"GET {path}"
        url = self._pool.address.api(path, query)
        try:
            async with asyncio.timeout(self._settings.request_timeout_s):
                answer = await self._pool.request("GET", url, self._headers, what, limit=MAX_BODY, packed=True)
        except TimeoutError as exc:
            raise BackendTimeout(f"{what}: no answer within {self._settings.request_timeout_s:g} s") from exc
        if answer.status == 200:
            if not answer.is_json or not (answer.is_packed or answer.body[-16:].rstrip()[-1:] in (b"}", b"]")):
                raise NoJson(f"{what}: the server's answer is cut off or no JSON")
            return answer
        raise refusal(answer.unpacked(what, MAX_BODY), what)

    def headers(self) -> Mapping[str, str]:
        """Headers of the event channel's handshake."""
        return {key: value for key, value in self._headers.items() if not key.startswith("Accept")}


def decode(answer: Answer, what: str) -> Any:
    """The decoded body. Raises BackendUnavailable, and BackendError where it unpacks to more than is read."""
    return answer.unpacked(what, MAX_BODY).json(what)


def refusal(answer: Answer, what: str) -> BackendError:
    """The error that a response other than 200 stands for."""
    said = _detail(answer)
    match answer.status:
        case 401 | 403 if not answer.is_json:  # the API says everything as JSON
            return TokenRefused(
                f"{what}: HTTP {answer.status} from a gateway in front of the server; it has to let us in"
            )
        case 401 | 403:
            return TokenRefused(
                f"{what}: the server refuses the outpost's token (HTTP {answer.status}{said}); check AUTHENTIK_TOKEN"
            )
        case 404:
            return NotFound(f"{what}: not found{said}", is_api=answer.is_json)
        case 400:
            return RequestRefused(f"{what}: refused by the server (HTTP 400{said})")
        case 301 | 302 | 303 | 307 | 308:
            # Following it could hand the token to somebody else.
            target = _where(answer.location)
            return BackendUnavailable(f"{what}: the server redirects to {target}; give the final URL in AUTHENTIK_HOST")
        case status:
            who = "the server" if answer.is_json else "the server or a gateway in front of it"
            return BackendUnavailable(f"{what}: HTTP {status} from {who}{said}")


def _where(location: str) -> str:
    """The origin or path of a Location header, fit for a message."""
    try:
        url = URL(location)
        return str(url.origin()) if url.absolute else repr(url.path[:100])
    except ValueError:
        return repr(location[:100])


def _detail(answer: Answer) -> str:
    if not answer.is_json:
        return ""
    try:
        content = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return ""
    detail = content.get("detail") if isinstance(content, dict) else None
    return f": {detail[:200]}" if isinstance(detail, str) and detail.isprintable() else ""


class Pools:
    """The two pools of the backend: logins never wait for pages and pages never wait for logins."""

    def __init__(self, settings: AuthentikSettings) -> None:
        self.rest = Pool(settings, limit=settings.concurrency * 2 + 8)
        self.logins = Pool(settings, limit=settings.login_concurrency * 2)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def doubt(self) -> None:
        """Both begin anew with the next request."""
        self.rest.doubt()
        self.logins.doubt()

    async def close(self) -> None:
        """Close both; idempotent."""
        await self.rest.close()
        await self.logins.close()
