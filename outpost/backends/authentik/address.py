"""Where the authentik server is: base URL, sub-path, Unix socket, proxy from the environment."""

from __future__ import annotations

import re
import urllib.request
from dataclasses import dataclass
from urllib.parse import quote, quote_plus, urlencode, urlsplit

from yarl import URL

from outpost.errors import ConfigError

SOURCE = "AUTHENTIK_HOST"
Query = tuple[tuple[str, str], ...]
"""Query parameters in order; a name may repeat."""
_CONFIGURE = re.compile(r"/flows/-/configure/[0-9A-Fa-f-]+/")
_SHOWN = re.compile(r"/if/flow/([A-Za-z0-9_-]+)/")


@dataclass(frozen=True, slots=True)
class Address:
    """A server's address, ready to build URLs that go on the wire byte for byte."""

    origin: str
    """Scheme and authority, no slash at the end."""
    path: str
    """Sub-path the server lives under, starting but not ending with a slash; empty at the root."""
    socket: str = ""
    """Path of the Unix socket to connect to instead of the authority."""

    @classmethod
    def parse(cls, host: str) -> Address:
        """The address that AUTHENTIK_HOST names. Raises ConfigError."""
        text = host.strip()
        if not text:
            raise ConfigError("is empty; give the URL of the authentik server", source=SOURCE)
        if any(char <= " " or char == "\x7f" for char in text):  # urlsplit would drop some of them silently
            raise ConfigError("has blanks or control characters", source=SOURCE)
        if text.startswith("unix://"):
            socket = text.removeprefix("unix://")
            if not socket.startswith("/"):
                raise ConfigError(f"{host!r}: a Unix socket is named by its absolute path, unix:///path", source=SOURCE)
            return cls("http://localhost", "", socket)
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError as exc:
            raise ConfigError(f"{host!r} is no URL: {exc}", source=SOURCE) from exc
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{host!r}: expected http://, https:// or unix://, and a host name", source=SOURCE)
        if parts.username is not None or parts.query or parts.fragment:
            raise ConfigError("no user name, query or fragment belongs here", source=SOURCE)
        if not re.fullmatch(r"[A-Za-z0-9._~%/:@!$&'()*+,;=-]*", parts.path):
            raise ConfigError(f"{host!r}: the path has characters that no URL has", source=SOURCE)
        name = f"[{parts.hostname}]" if ":" in parts.hostname else _ascii(parts.hostname, host)
        return cls(f"{parts.scheme}://{name}{'' if port is None else f':{port}'}", parts.path.rstrip("/"))

    def api(self, path: str, query: Query = ()) -> URL:
        """The URL of an API path such as `/core/users/`; query values are escaped as a form."""
        tail = f"?{'&'.join(f'{_escaped(key)}={_escaped(value)}' for key, value in query)}" if query else ""
        return URL(f"{self.origin}{self.path}/api/v3{path}{tail}", encoded=True)

    def executor(self, slug: str, query: Query) -> URL:
        """The URL of a flow's executor with the flow context `query`.

        The parameter's value is a form of its own and escaped again, `%252F` for a slash: the server compares this
        with its own rendering octet by octet and sends away whoever wrote it differently.
        """
        inner = urlencode(query)
        return self.api(f"/flows/executor/{quote(slug, safe='')}/", (("query", inner),))

    def configuration(self, path: str) -> URL:
        """The URL of a page where users configure a stage, from the path that the server names.

        A gateway may hide the sub-path from the server. Raises ValueError for another host and for any other page.
        """
        found = _CONFIGURE.fullmatch(path.removeprefix(self.origin).removeprefix(self.path))
        if found is None:
            raise ValueError("no page of this server to configure a stage")
        return URL(f"{self.origin}{self.path}{found[0]}", encoded=True)

    def flow_shown(self, location: str) -> str | None:
        """The slug of the flow whose page a redirect leads to; None when it leads anywhere else."""
        try:
            path = urlsplit(location).path
        except ValueError:
            return None
        found = _SHOWN.fullmatch(path.removeprefix(self.path))
        return None if found is None else found[1]

    def websocket(self, outpost_pk: str, query: Query) -> URL:
        """The URL of an outpost's event channel; the slash at the end of the path is required."""
        origin = "ws" + self.origin.removeprefix("http")
        return URL(f"{origin}{self.path}/ws/outpost/{quote(outpost_pk, safe='')}/?{urlencode(query)}", encoded=True)

    def proxy(self) -> str | None:
        """The proxy that the environment names for this server (HTTP_PROXY, HTTPS_PROXY, NO_PROXY).

        Raises ConfigError for a kind of proxy that cannot be used.
        """
        if self.socket:
            return None
        parts = urlsplit(self.origin)
        if urllib.request.proxy_bypass(parts.netloc):
            return None
        proxy = urllib.request.getproxies().get(parts.scheme)
        if not proxy:
            return None
        url = proxy if "://" in proxy else f"http://{proxy}"
        if not url.lower().startswith(("http://", "https://")):
            # The address may hold a password: it is not quoted.
            raise ConfigError("only http:// and https:// proxies can be used", source=f"{parts.scheme.upper()}_PROXY")
        return url


def _escaped(text: str) -> str:
    """As in a form; most parameters are plain, and `quote_plus` looks at every character of them in Python."""
    return text if text.isascii() and text.replace("_", "").isalnum() else quote_plus(text)


def _ascii(name: str, host: str) -> str:
    if name.isascii():
        return name
    try:
        return name.encode("idna").decode("ascii")
    except UnicodeError as exc:
        raise ConfigError(f"{host!r}: no host can have this name", source=SOURCE) from exc
