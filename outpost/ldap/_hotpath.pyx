# cython: language_level=3, auto_pickle=False, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""The common requests of a connection, answered in C out of the receive buffer; everything else goes its usual way."""
# Each function that answers looks first, and changes nothing before it knows that it will answer: what it leaves is
# served by `outpost.ldap.operations` as if nobody had looked. What it answers, it answers, counts and tells as they do;
# `tests/ldap/test_hotpath.py` compares the two.
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItemWithError
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcmp, memcpy

from outpost._fastber cimport Inbox, Limits, SearchRequest, Span, ber_uint_size, decode_one, filter_walk, put_uint
from outpost.credentials._believed cimport Believed, Who
from outpost.ldap._session cimport Session
from outpost.ldap._shelf cimport Shelf
from outpost.ldap._snapshot cimport (
    Output, compare_at, idle_search, plan_search, put_simple_dn, read_search, reserve, rest_search,
)
from outpost.observe._ldap_lines cimport LdapLines
from outpost.observe._lines cimport Lines
from outpost.observe._rows cimport Row

import time

from outpost.errors import ProtocolError
from outpost.identity import Mode

__all__ = ("HotPath", "Wire")

cdef extern from "string.h" nogil:
    void explicit_bzero(void *s, size_t n)

cdef extern from "time.h" nogil:
    ctypedef long time_t
    struct timespec:
        time_t tv_sec
        long tv_nsec
    enum: CLOCK_REALTIME
    enum: CLOCK_MONOTONIC
    int clock_gettime(int which, timespec *out)

cdef enum:
    SLICE = 65536           # octets of entries; a search with more is sent in slices
    EXAMINED = 4096
    FULL = 262144           # octets of answers that are handed to the transport before more are made
    KEPT = 131072           # octets of an empty output that are not given back
    REMEMBERED = 4096       # bind names
    LONGEST = 256           # octets of a DN that is looked at here
    SMALL = 4096            # octets of an inbox that need not shrink
    INFO = 20               # the level of lines about requests

    BIND = 0x60
    SEARCH = 0x63
    COMPARE = 0x6E

    COMPARE_FALSE = 5
    COMPARE_TRUE = 6


cdef inline double seconds(int which) noexcept nogil:
    cdef timespec at
    clock_gettime(which, &at)
    return <double>at.tv_sec + 1e-9 * <double>at.tv_nsec


# -- recognising -------------------------------------------------------------------------------------
# Stricter than the decoder, which has the last word about what is not taken here.

cdef inline int next_tag(Span *s, Span *inner) noexcept nogil:
    """The element at s, which is narrowed; -1 if it is none."""
    cdef Py_ssize_t n
    cdef int tag, octets
    if s.end - s.pos < 2:
        return -1
    tag = s.pos[0]
    n = s.pos[1]
    s.pos += 2
    if n >= 0x80:
        octets = <int>(n & 0x7F)
        if octets == 0 or octets > 4 or octets > s.end - s.pos:
            return -1
        n = 0
        while octets > 0:
            n = (n << 8) | s.pos[0]
            s.pos += 1
            octets -= 1
    if n > s.end - s.pos:
        return -1
    inner.pos = s.pos
    inner.end = s.pos + n
    s.pos += n
    return tag


cdef inline bint take_uint(Span *s, int tag, uint32_t *out) noexcept nogil:
    cdef Span body
    cdef uint32_t v = 0
    cdef Py_ssize_t n
    if next_tag(s, &body) != tag:
        return False
    n = body.end - body.pos
    if n < 1 or n > 4 or body.pos[0] & 0x80 or (n > 1 and body.pos[0] == 0 and body.pos[1] < 0x80):
        return False
    while body.pos < body.end:
        v = (v << 8) | body.pos[0]
        body.pos += 1
    out[0] = v
    return True


@cython.final
cdef class Place:
    """A provider that is served now."""
    cdef object provider, pk
    cdef uint32_t since     # of which `HotPath.serve`
    cdef str app
    cdef bint needs_tls
    cdef bint is_compiled
    cdef Row bound, searched, limited, was_true, was_false


@cython.final
cdef class Known:
    """A bind name understood."""
    cdef Place place
    cdef Who who


@cython.final
cdef class HotPath:
    cdef object gate, observer, sessions, release, clock, providers, ledger
    cdef dict shelves       # by primary key of the provider
    cdef uint32_t served    # times
    cdef Limits bound_limits
    cdef uint32_t size_limit
    cdef bint is_monotonic
    cdef Believed believed
    cdef LdapLines lines
    cdef bint any_needs_tls, all_need_tls, is_sole
    cdef Who anybody        # of the sole provider; None where names have to be understood in Python
    cdef Place sole
    cdef bytes sole_base, sole_type
    cdef dict names         # as written: Known
    cdef dict places        # by primary key
    cdef object search
    cdef Output out
    cdef readonly Py_ssize_t answered

    def __cinit__(
        self, gate, directories, observer, sessions, release, Limits bound_limits not None, uint32_t size_limit, clock
    ):
        self.gate = gate
        self.shelves = directories.shelves
        self.observer = observer
        self.sessions = sessions
        self.release = release
        self.bound_limits = bound_limits
        self.size_limit = size_limit
        self.clock = clock
        self.is_monotonic = clock is time.monotonic
        believed = getattr(gate, "believed", None)
        if type(believed) is Believed and gate.clock is clock:
            self.believed = believed
        self.ledger = getattr(observer, "ledger", None)
        if self.ledger is not None:
            self.lines = self.ledger.lines
        self.names = {}
        self.places = {}
        self.search = idle_search()
        self.out.data = self.out.fixed = NULL
        self.out.size = self.out.room = 0

    def __dealloc__(self):
        PyMem_Free(self.out.data)

    def serve(self, providers):
        self.providers = providers
        self.served += 1
        self.any_needs_tls = providers.any_requires_tls
        self.all_need_tls = providers.requires_tls(None)
        self.is_sole = len(providers.bases()) == 1
        self.names = {}
        self.places = {}
        self.anybody = None
        sole = providers.sole()
        if sole is not None and self.believed is not None:
            self.anybody = self.gate.whom(sole[0], "")
            self.sole = self.place_of(sole[0])
            self.sole_base = sole[1]
            self.sole_type = sole[2]

    cdef double now(self) except? -1.0:
        if self.is_monotonic:
            return seconds(CLOCK_MONOTONIC)
        return self.clock()

    cdef Place place_of(self, object provider):
        """Where a provider, as a session or a name has it, is now; None if there is none that is the same."""
        cdef Place place = self.places.get(provider.pk)
        if place is None:
            current = self.providers.current(provider)
            if current is None:
                return None
            place = Place.__new__(Place)
            place.provider = current
            place.pk = current.pk
            place.since = self.served
            place.app = current.application_slug
            place.needs_tls = current.options.require_tls
            place.is_compiled = current.search_mode is Mode.CACHED
            if self.ledger is not None:
                place.bound = self.ledger.row("bind", place.app, 0)
                place.searched = self.ledger.row("search", place.app, 0)
                place.limited = self.ledger.row("search", place.app, 4)
                place.was_true = self.ledger.row("compare", place.app, COMPARE_TRUE)
                place.was_false = self.ledger.row("compare", place.app, COMPARE_FALSE)
            self.places[provider.pk] = place
        return place

    cdef Place place_in(self, Wire wire):
        """The same for whoever has bound; None for others."""
        cdef Place place = wire.place
        cdef Session session = wire.session
        provider = session.provider
        if provider is None:
            return None
        if place is not None and place.since == self.served and place.provider is provider:
            return place
        place = wire.place = self.place_of(provider)
        if place is not None and provider is not place.provider:
            if provider != place.provider:
                return None
            # Read again, and the same as before.
            session.provider = place.provider
        return place

    cdef Shelf shelf_of(self, Place place):
        """The directory of a provider as it is now; None before the first."""
        cdef PyObject *found = PyDict_GetItemWithError(self.shelves, place.pk)
        return None if found == NULL else <Shelf?><object>found

    cdef uint8_t *room(self, Py_ssize_t more) except NULL:
        if self.out.data == NULL:
            self.out.data = <uint8_t *>PyMem_Malloc(8192)
            if self.out.data == NULL:
                raise MemoryError
            self.out.room = 8192
        return reserve(&self.out, more)

    cdef int finish(self, uint32_t message_id, int op, int code) except -1:
        """A response that is nothing but a result code."""
        cdef int id_size = ber_uint_size(message_id)
        cdef uint8_t *p = self.room(24)
        p[0] = 0x30
        p[1] = <uint8_t>(id_size + 11)
        p = put_uint(p + 2, 0x02, message_id)
        p[0] = <uint8_t>op
        p[1] = 7
        p[2] = 0x0A
        p[3] = 1
        p[4] = <uint8_t>code
        p[5] = 4
        p[6] = 0
        p[7] = 4
        p[8] = 0
        self.out.size = p + 9 - self.out.data
        self.answered += 1
        return 0

    # -- one request each: False if it is left ------------------------------------------------------

    cdef bint bind(self, Wire wire, uint32_t message_id, Span *body, double now) except -1:
        cdef Span name, secret, user
        cdef uint32_t version
        cdef uint8_t[LONGEST] normal
        cdef Known known
        cdef Place place
        cdef bytes octets
        cdef double took
        cdef Session session = wire.session
        cdef bint is_secure = session.is_secure
        if self.believed is None or (self.all_need_tls and not is_secure):
            return False
        if not take_uint(body, 0x02, &version) or version != 3 or next_tag(body, &name) != 0x04:
            return False
        if next_tag(body, &secret) != 0x80 or body.pos != body.end or secret.pos == secret.end:
            return False
        octets = PyBytes_FromStringAndSize(<const char *>name.pos, name.end - name.pos)
        if self.anybody is not None and self.user_of(&name, normal, &user):
            place = self.sole
            if place.needs_tls and not is_secure:
                return False
            accepted = self.believed.known(
                self.anybody, user.pos, user.end - user.pos, secret.pos, secret.end - secret.pos, now, wire.address
            )
        else:
            known = self.understood(octets)
            if known is None:
                return False
            place = known.place
            if place.needs_tls and not is_secure:
                return False
            accepted = self.believed.known(
                known.who, <const uint8_t *>PyBytes_AS_STRING(known.who.name), PyBytes_GET_SIZE(known.who.name),
                secret.pos, secret.end - secret.pos, now, wire.address
            )
        if accepted is None:
            return False
        identity = accepted.identity
        if self.sessions is not None:
            self.release(session)
            if identity.session is not None:
                self.sessions.hold(identity.session)
        else:
            if session.pages:
                session.pages.clear()
        session.bind_dn = octets
        session.provider = place.provider
        session.identity = identity
        wire.place = place
        wire._inbox._limits = self.bound_limits
        self.finish(message_id, 0x61, 0)
        took = self.now() - now
        if self.lines is None:
            self.observer.bound(place.app, wire.address, octets, took, 0, "")
            return True
        place.bound.count(took)
        if self.lines.lines.threshold <= INFO:
            self.lines.bind(seconds(CLOCK_REALTIME), wire.address, octets, took, 0, "")
        return True

    cdef bint user_of(self, const Span *name, uint8_t *normal, Span *user) noexcept:
        """The user's name in lower case, in a plain DN below the sole provider's base."""
        cdef Py_ssize_t size = name.end - name.pos, above, at = 0, start
        cdef Py_ssize_t base_size = PyBytes_GET_SIZE(self.sole_base), type_size = PyBytes_GET_SIZE(self.sole_type)
        above = size - base_size - 1
        if size > LONGEST or above < 4 or not put_simple_dn(name.pos, size, normal):
            return False
        if normal[above] != 0x2C or memcmp(normal + above + 1, PyBytes_AS_STRING(self.sole_base), base_size) != 0:
            return False
        while at < above:
            start = at
            while normal[at] != 0x3D:
                at += 1
            at += 1
            user.pos = normal + at
            while normal[at] != 0x2C:
                at += 1
            user.end = normal + at
            if user.pos - (normal + start) == 3 and memcmp(normal + start, b"cn=", 3) == 0:
                return True
            if (user.pos - (normal + start) == type_size + 1
                    and memcmp(normal + start, PyBytes_AS_STRING(self.sole_type), type_size) == 0):
                return True
            at += 1
        return False

    cdef Known understood(self, bytes name):
        """Who is meant by a name; None where his logins are not remembered, or nobody is meant."""
        cdef Known known = self.names.get(name)
        if known is not None:
            return known
        found = self.providers.bind_name(name)
        if found is None:
            return None
        who = self.gate.whom(found.provider, found.username)
        if who is None:
            return None
        known = Known.__new__(Known)
        known.place = self.place_of(found.provider)
        if known.place is None:
            return None
        known.who = who
        if len(self.names) >= REMEMBERED:
            self.names.clear()
        self.names[name] = known
        return known

    cdef bint is_below(self, Place place, const Span *dn) except -1:
        """The DN, which the provider's directory has, is not also in another provider's that lies within."""
        if self.is_sole:
            return True
        owner = self.providers.of_base(dn.pos[:dn.end - dn.pos])[1]
        return owner is not None and owner.pk == place.provider.pk

    cdef bint search_in(self, Wire wire, uint32_t message_id, const Span *message, Span *body, double now) except -1:
        cdef Span base, filter, names, s, one
        cdef uint32_t scope, number, limit, sent = 0
        cdef Py_ssize_t count = 0, before = self.out.size
        cdef int code = 0
        cdef bint types_only, is_whole
        cdef Place place
        cdef Shelf shelf
        cdef Limits limits = wire._inbox._limits
        cdef Session session = wire.session
        if self.any_needs_tls and not session.is_secure:
            return False
        place = self.place_in(wire)
        if place is None or not place.is_compiled:
            return False
        if next_tag(body, &base) != 0x04 or base.pos == base.end:
            return False
        if not take_uint(body, 0x0A, &scope) or scope > 2 or not take_uint(body, 0x0A, &number) or number > 3:
            return False
        if not take_uint(body, 0x02, &limit) or not take_uint(body, 0x02, &number):
            return False
        if next_tag(body, &one) != 0x01 or one.end - one.pos != 1:
            return False
        types_only = one.pos[0] != 0
        filter.pos = body.pos
        filter_walk(body, limits)
        filter.end = body.pos
        if next_tag(body, &names) != 0x30 or body.pos != body.end:
            return False
        s = names
        while s.pos < s.end:
            if count == limits.attributes or next_tag(&s, &one) != 0x04:
                return False
            count += 1
        if not self.is_below(place, &base):
            return False
        shelf = self.shelf_of(place)
        if shelf is None:
            return False
        view = shelf.view_of(session.identity)
        if view is None:
            return False
        if self.size_limit and (limit == 0 or self.size_limit < limit):
            limit = self.size_limit
        if not plan_search(
            self.search, shelf.snapshot, view, message_id, &base, <int>scope, types_only, limit, &filter, &names
        ):
            return False
        self.room(0)
        is_whole = read_search(self.search, &self.out, SLICE, EXAMINED, &sent, &code)
        rest_search(self.search)
        if not is_whole:
            # Sent in slices; the first one is made again.
            self.out.size = before
            return False
        self.finish(message_id, 0x65, code)
        self.tell_search(wire, place, message, &base, <int>scope, &filter, &names, self.now() - now, code, sent)
        return True

    cdef int tell_search(
        self, Wire wire, Place place, const Span *message, const Span *base, int scope, const Span *filter,
        const Span *names, double took, int code, Py_ssize_t sent
    ) except -1:
        cdef bytes bind_dn = wire.session.bind_dn
        cdef double at
        if self.lines is None:
            self.observer.searched(
                place.app, wire.address, bind_dn, self.decoded(wire, message), took, code, "", sent
            )
            return 0
        (place.limited if code else place.searched).count(took)
        if self.lines.lines.threshold <= INFO:
            at = seconds(CLOCK_REALTIME)
            if not self.lines.put_search(
                at, wire.address, <const uint8_t *>PyBytes_AS_STRING(bind_dn), PyBytes_GET_SIZE(bind_dn), base, scope,
                filter, names, took, code, "", sent
            ):
                self.lines.search_apart(
                    self.lines.requests, at, wire.address, bind_dn, self.decoded(wire, message), took, code, "", sent
                )
        return 0

    cdef SearchRequest decoded(self, Wire wire, const Span *message):
        cdef Span s = message[0]
        return decode_one(&s, wire._inbox._limits)

    cdef bint compare(self, Wire wire, uint32_t message_id, Span *body, double now) except -1:
        cdef Span entry, assertion, attribute, value
        cdef Place place
        cdef Shelf shelf
        cdef Session session = wire.session
        cdef int code
        cdef double took
        place = self.place_in(wire)
        if place is None or not place.is_compiled:
            return False
        if next_tag(body, &entry) != 0x04 or next_tag(body, &assertion) != 0x30 or body.pos != body.end:
            return False
        if next_tag(&assertion, &attribute) != 0x04 or next_tag(&assertion, &value) != 0x04:
            return False
        if assertion.pos != assertion.end or not self.is_below(place, &entry):
            return False
        shelf = self.shelf_of(place)
        if shelf is None:
            return False
        view = shelf.view_of(session.identity)
        if view is None:
            return False
        code = compare_at(shelf.snapshot, view, &entry, &attribute, &value)
        if code != COMPARE_TRUE and code != COMPARE_FALSE:
            return False
        self.finish(message_id, 0x6F, code)
        took = self.now() - now
        if self.lines is None:
            self.observer.operated("compare", place.app, wire.address, session.bind_dn, took, code)
            return True
        (place.was_true if code == COMPARE_TRUE else place.was_false).count(took)
        if self.lines.lines.threshold <= INFO:
            self.lines.operation(
                seconds(CLOCK_REALTIME), "compare", wire.address, <bytes>session.bind_dn, took, code
            )
        return True

    # -- the requests that lie in an inbox ----------------------------------------------------------

    cdef bint answer(self, Wire wire, double now) except -1:
        """Answer the first request if that can be done here."""
        cdef Inbox inbox = wire._inbox
        cdef Span message, s, body
        cdef uint32_t message_id
        cdef Py_ssize_t have = inbox.end - inbox.start
        cdef int op
        message.pos = inbox.block.data + inbox.start
        message.end = message.pos + have
        s = message
        if have < 7 or next_tag(&s, &body) != 0x30 or s.pos - message.pos > inbox._limits.message:
            return False
        message.end = s.pos
        s = body
        if not take_uint(&s, 0x02, &message_id) or message_id == 0:
            return False
        op = next_tag(&s, &body)
        if s.pos != s.end:
            return False
        if op == BIND:
            if not self.bind(wire, message_id, &body, now):
                return False
            explicit_bzero(<void *>message.pos, message.end - message.pos)
        elif op == SEARCH:
            if not self.search_in(wire, message_id, &message, &body, now):
                return False
        elif op != COMPARE or not self.compare(wire, message_id, &body, now):
            return False
        inbox.start += message.end - message.pos
        return True

    cdef bint answers(self, Wire wire, double now) except -1:
        """The same, whatever fails inside."""
        cdef Py_ssize_t before = self.out.size
        cdef bytes octets
        try:
            if self.answer(wire, now):
                return True
        except ProtocolError:
            # Looked at again, and complained of, in its turn.
            pass
        except Exception as error:  # a bug costs this request its answer and nobody anything else
            self.out.size = before
            octets = wire._failed(wire._inbox.next(), error)
            memcpy(self.room(PyBytes_GET_SIZE(octets)), PyBytes_AS_STRING(octets), PyBytes_GET_SIZE(octets))
            self.out.size += PyBytes_GET_SIZE(octets)
            return True
        self.out.size = before
        return False

    cdef int flush(self, Wire wire) except -1:
        """Hand what was answered to the transport."""
        cdef object octets
        cdef object transport = wire._transport
        if self.out.size == 0:
            return 0
        octets = PyBytes_FromStringAndSize(<const char *>self.out.data, self.out.size)
        self.out.size = 0
        if self.out.room > KEPT:
            PyMem_Free(self.out.data)
            self.out.data = NULL
            self.out.room = 0
        if transport is not None and not transport.is_closing():
            transport.write(octets)
        return 0


cdef class Wire:
    cdef HotPath hotpath
    cdef str address
    cdef set running
    cdef public Session session
    cdef Place place        # of the session's provider, as it was found last
    cdef public Inbox _inbox
    cdef public object _transport
    cdef public object stalled_at
    cdef public double active_at
    cdef public bint _is_closing
    cdef public bint _is_draining
    cdef public bint _is_reading

    def __init__(self, HotPath hotpath not None, Session session not None, Inbox inbox not None, set running not None):
        self.hotpath = hotpath
        self.session = session
        self.address = session.address
        self._inbox = inbox
        self.running = running
        self._is_reading = True

    def get_buffer(self, Py_ssize_t sizehint):
        cdef Inbox inbox = self._inbox
        if inbox.start == inbox.end and inbox.end < inbox.block.size and inbox.view is not None and inbox.block.size <= SMALL:
            inbox.start = inbox.end = 0
            return inbox.view
        return self._make_room(sizehint)

    def buffer_updated(self, Py_ssize_t nbytes):
        cdef HotPath hotpath = self.hotpath
        cdef Inbox inbox = self._inbox
        cdef double now
        if self._is_closing:
            return
        inbox.received(nbytes)
        now = self.active_at = hotpath.now()
        if not self.running and not self._is_draining and self.stalled_at is None and not inbox.broken:
            while inbox.start < inbox.end and hotpath.answers(self, now):
                if hotpath.out.size >= FULL:
                    hotpath.flush(self)
                    if self.stalled_at is not None or self._is_closing:
                        break
            hotpath.flush(self)
            if inbox.start == inbox.end and self._is_reading and not self._is_closing:
                return
        self._turn()
