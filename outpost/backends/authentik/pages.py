"""Lists that the server hands out in pages: all of them or none."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from outpost.backends.authentik.address import Query
from outpost.backends.authentik.client import MAX_BODY, Answer, Client, NotFound
from outpost.backends.authentik.pauses import gently
from outpost.backends.authentik.shape import Shape
from outpost.errors import BackendError, BackendUnavailable

T = TypeVar("T")


class Batch(Protocol):
    """What the items of a page are made into."""

    @property
    def keys(self) -> Sequence[object]:
        """Of each item, by which it is found out when it stands on two pages."""
        ...


B = TypeVar("B", bound=Batch)
MAX_PAGES = 100_000
READS = 3
"""Times a list that changes while it is read is begun anew."""
OFF_LOOP = 65_536
"""Octets of a page from which on it is decoded in a thread; of a packed one a tenth."""
AT_A_TIME = 16
"""Items decoded, or pages compared, between two pauses: half a millisecond's work."""
_GMAC = AESGCM(AESGCM.generate_key(128))


@dataclass(frozen=True, slots=True)
class Items(Generic[T]):
    """A batch of the items as they are."""

    items: tuple[T, ...]
    keys: tuple[object, ...]


def each(decode_item: Callable[[Shape], T], key: Callable[[T], object]) -> Callable[[Iterable[Shape]], Items[T]]:
    """Makes a page into its items."""

    def decode(shapes: Iterable[Shape]) -> Items[T]:
        items = tuple(decode_item(shape) for shape in shapes)
        return Items(items, tuple(map(key, items)))

    return decode


@dataclass(frozen=True, slots=True)
class Page(Generic[B]):
    """One page, decoded."""

    digest: bytes
    """Of the answer's octets as they travelled: an equal answer is not even unpacked."""
    content_digest: bytes
    """Of the same unpacked: equal content is not decoded again, however it was packed."""
    number: int
    next_number: int
    """0 on the last page."""
    total_pages: int
    count: int
    batch: B


@dataclass(frozen=True, slots=True)
class Reading:
    """How lists are read."""

    page_size: int
    slots: asyncio.Semaphore
    """Bounds the pages asked for at a time, of all the lists together."""
    at_once: int
    """Pages of one list asked for at a time."""
    decoding: asyncio.Lock
    """One page is decoded at a time: several threads would but keep each other and the loop waiting."""
    prober: Client
    """Tries each request once; asks whether what failed works again."""


class Moved(BackendError):
    """The list changed while it was read."""


class Lister(Generic[B]):
    """Reads one list again and again, and decodes only the pages that changed."""

    def __init__(
        self,
        client: Client,
        path: str,
        query: Query,
        decode_batch: Callable[[Iterable[Shape]], B],
        reading: Reading,
    ) -> None:
        self._client = client
        self._path = path
        self.query = query
        self._decode_batch = decode_batch
        self._page_size = reading.page_size
        self._slots = reading.slots
        self._at_once = reading.at_once
        self._decoding = reading.decoding
        self._prober = reading.prober
        self._known: dict[int, Page[B]] = {}
        self._suspect = 0
        """The page that failed last time, 0 when none did."""

    @property
    def known(self) -> Iterator[B]:
        """The pages of the last read."""
        return (page.batch for page in self._known.values())

    async def read(self) -> tuple[tuple[B, ...], bool]:
        """All pages, and whether any differs from the read before. Raises BackendError."""
        for attempt in range(1, READS + 1):
            try:
                return await self._read()
            except Moved:
                if attempt == READS:
                    raise
        raise AssertionError("unreachable")

    async def probe(self) -> None:
        """Ask for the page that failed last time, and for nothing else, once. Raises BackendError if it still fails."""
        if self._suspect:
            with contextlib.suppress(Moved):
                await self._page(self._suspect, self._prober)

    def ask(self, query: Query) -> None:
        """Ask otherwise from now on."""
        self.query = query
        self.forget()

    def forget(self) -> None:
        """Drop what is kept of the last read."""
        self._known = {}

    async def _read(self) -> tuple[tuple[B, ...], bool]:
        first = await self._page(1)
        pages = [first]
        if first.total_pages > MAX_PAGES:
            raise BackendError(f"GET {self._path}: {first.total_pages} pages are more than we read")
        if first.total_pages > 1:
            pages += await self._rest(first.total_pages)
        while pages[-1].next_number:  # grown meanwhile
            if len(pages) >= MAX_PAGES or pages[-1].next_number <= pages[-1].number:
                raise BackendUnavailable(f"GET {self._path}: the pages have no end")
            pages.append(await self._page(pages[-1].next_number))
        known = self._known
        is_changed = len(known) != len(pages) or any(
            page.number not in known or known[page.number].batch is not page.batch for page in pages
        )
        if len(pages) == 1:
            self._check(pages)
        elif is_changed:  # what was found whole before is whole
            await asyncio.to_thread(self._check, pages, AT_A_TIME)
        self._known = {page.number: page for page in pages}
        return tuple(page.batch for page in pages), is_changed

    def _check(self, pages: list[Page[B]], every: int = 0) -> None:
        """Raises Moved unless each item is there once."""
        found = sum(len(page.batch.keys) for page in pages)
        # Items that move from a page not yet read to one read already are seen by no page: only counting tells.
        if any(page.count != pages[-1].count for page in pages) or found != pages[-1].count:
            raise Moved(f"GET {self._path}: the list changed while it was read")
        if _ascend(page.batch.keys for page in gently(pages, every)):
            return
        seen: set[object] = set()
        for page in gently(pages, every):
            seen.update(page.batch.keys)
        if len(seen) != found:
            raise Moved(f"GET {self._path}: the same item is on two pages")

    async def _rest(self, total: int) -> list[Page[B]]:
        numbers = iter(range(2, total + 1))
        found: list[Page[B]] = []

        async def some() -> None:
            for number in numbers:
                found.append(await self._page(number))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._at_once, total - 1)):
                    group.create_task(some())
        except BaseExceptionGroup as exc:
            for one in exc.exceptions:
                if not isinstance(one, BackendError):
                    raise one from exc
            raise exc.exceptions[0] from exc
        return sorted(found, key=lambda page: page.number)

    async def _page(self, number: int, client: Client | None = None) -> Page[B]:
        query = (("page", str(number)), ("page_size", str(self._page_size)), *self.query)
        what = f"GET {self._path}, page {number}"
        async with self._slots:
            try:
                answer = await (client or self._client).get_answer(self._path, query)
            except NotFound as exc:
                if number == 1 or not exc.is_api:
                    raise
                self._suspect = 0
                raise Moved(f"{what}: not there any more") from exc
            except BackendError:
                self._suspect = number
                raise
            digest = _digest(answer.body)
            known = self._known.get(number)
            if known is not None and known.digest == digest:
                page = known
            elif len(answer.body) * (10 if answer.is_packed else 1) >= OFF_LOOP:
                async with self._decoding:
                    page = await asyncio.to_thread(self._decode, answer, digest, number, what, AT_A_TIME)
            else:
                page = self._decode(answer, digest, number, what)
        if self._suspect == number:
            self._suspect = 0
        return page

    def _decode(self, answer: Answer, digest: bytes, number: int, what: str, every: int = 0) -> Page[B]:
        plain = answer.unpacked(what, MAX_BODY)
        content_digest = _digest(plain.body) if answer.is_packed else digest
        known = self._known.get(number)
        if known is not None and known.content_digest == content_digest:
            return replace(known, digest=digest)
        shape = Shape(plain.json(what), what)
        pagination = shape.child("pagination")
        batch = self._decode_batch(gently(shape.listing("results").children("results"), every))
        return Page(
            digest,
            content_digest,
            number,
            pagination.integer("next"),
            pagination.integer("total_pages"),
            pagination.integer("count", len(batch.keys)),
            batch,
        )


def _digest(octets: bytes) -> bytes:
    """Tells octets from others: GMAC (NIST SP 800-38D), twenty times as fast as a hash.

    Nobody sees a tag or knows the key, both of this process alone, so that one nonce does for all of them.
    """
    return _GMAC.encrypt(bytes(12), b"", octets)


def _ascend(all_keys: Iterable[Sequence[Any]]) -> bool:
    """Whether each key is greater than the one before, so that none is there twice.

    Lists are asked for in an order. A set of a hundred thousand keys for each read would leave its memory in pieces.
    """
    last = None
    for keys in all_keys:
        for key in keys:
            if last is not None and not last < key:
                return False
            last = key
    return True
