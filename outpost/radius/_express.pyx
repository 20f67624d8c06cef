# cython: language_level=3, auto_pickle=False, boundscheck=False, wraparound=False, initializedcheck=False
"""One pass over a batch of datagrams: logins that are known already are answered in it, without a task or an object.

The rest goes, in the order in which it came, to the functions that answer everything. Both ways give the same
replies, counters, lines and repetitions; `tests/radius/test_express.py` sends the same datagrams along both.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.long cimport PyLong_FromVoidPtr
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_DecodeUTF8
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t
from libc.string cimport memcmp, memcpy

from outpost._fastradius cimport (
    ACCESS_ACCEPT, ACCESS_REQUEST, LONGEST, LONGEST_PASSWORD, V_FINE, Parts, authenticity, compose_reply,
    is_plain_login, outline, plain_password,
)
from outpost.credentials._believed cimport Believed
from outpost.radius._datagrams cimport ADDRESS_AT, PATH4, PATH6, Datagrams
from outpost.radius._intake cimport LONGEST_KEY, Intake, Peer, Request, made_request, objection, put_key

from outpost.radius.bypass import without_realm

__all__ = ("Express",)

cdef extern from "string.h" nogil:
    void explicit_bzero(void *data, size_t size)


cdef enum:
    # Octets of a User-Name.
    LONGEST_NAME = 253


cdef bint may_be_hardware_address(const uint8_t *name, int size) noexcept nogil:
    """Whether `outpost.radius.bypass` has to look at it."""
    cdef int i
    cdef uint8_t c
    if size < 12 or size > 17:
        return False
    for i in range(size):
        c = name[i]
        if not (
            0x30 <= c <= 0x39 or 0x41 <= c <= 0x46 or 0x61 <= c <= 0x66
            or c == 0x2D or c == 0x2E or c == 0x3A  # - . :
        ):
            return False
    return True


@cython.final
cdef class Lane:
    def __cinit__(self, Peer peer, observer, gate):
        self.provider = peer.client.provider
        self.source = peer.source
        self.app = peer.client.app
        self.client = peer.source.address
        self.probe_user = self.provider.options.probe_user.encode("utf-8", "surrogatepass")
        self.strips_realm = self.provider.options.strip_realm
        self.accepts = observer.accepts(self.app, self.client)
        if gate is not None:
            self.who = gate.whom(self.provider, "")


@cython.final
cdef class Express:
    def __cinit__(self, exchange not None, Intake intake not None, observer not None, *, gate, lasting, general,
                  unknown, accepted, clock, epoch):
        self.exchange = exchange
        self.intake = intake
        self.observer = observer
        self.gate = gate
        believed = getattr(gate, "believed", None)
        if type(believed) is Believed and gate.clock is clock:
            self.believed = believed
        self.lasting = lasting
        self.general = general
        self.unknown = unknown
        self.accepted = accepted
        self.clock = clock
        self.epoch = epoch

    def turn(self, Datagrams socket not None):
        cdef int count = socket.fill()
        cdef int i
        if count == 0:
            return 0
        self.now = self.clock()
        self.at = self.epoch()
        self.table = self.exchange.table
        self.peers = self.table.peers
        try:
            for i in range(count):
                try:
                    self.take(socket, i)
                except Exception as exc:  # a bug with one datagram must not cost the others their answer
                    self.observer.failed("a datagram failed", exc)
        finally:
            socket.flush()
        return count

    cdef int take(self, Datagrams socket, int i) except -1:
        cdef const uint8_t *raw = socket.received.buffers + i * LONGEST
        cdef Py_ssize_t received = socket.received.headers[i].msg_len
        cdef uint8_t key[LONGEST_KEY]
        cdef int path_size = socket.path(i, key)
        cdef bytes address
        cdef object octets
        if path_size == 0:
            return 0
        address = PyBytes_FromStringAndSize(<const char *>key + ADDRESS_AT, 4 if path_size == PATH4 else 16)
        if self.pass_through(socket, raw, received, address, key, path_size):
            return 0
        octets = self.general(
            PyBytes_FromStringAndSize(<const char *>raw, received), address,
            PyBytes_FromStringAndSize(<const char *>key, path_size), self.now,
        )
        self.queue(socket, key, path_size, octets)
        return 0

    cdef int queue(self, Datagrams socket, const uint8_t *path, int path_size, octets) except -1:
        cdef bytes reply
        if octets is not None:
            reply = octets
            if PyBytes_GET_SIZE(reply) > LONGEST:
                raise ValueError("a reply has 4096 octets at most")
            memcpy(socket.room(), PyBytes_AS_STRING(reply), PyBytes_GET_SIZE(reply))
            socket.queue(path, path_size, <size_t>PyBytes_GET_SIZE(reply))
        return 0

    cdef Peer peer(self, bytes address):
        cdef object found = self.peers.get(address)
        if found is None:
            # Whoever is not served is looked for again, and told of, in the general way.
            found = self.table.find(address)
        return found

    cdef bint pass_through(
        self, Datagrams socket, const uint8_t *raw, Py_ssize_t received, bytes address, uint8_t *key, int path_size
    ) except -1:
        """Whether the datagram is done with. False before anything was changed.

        key: its path, with room for more.
        """
        cdef Parts parts
        cdef int key_size
        cdef Peer peer
        cdef Lane lane
        cdef const uint8_t *name
        cdef int name_size
        cdef uint8_t password[LONGEST_PASSWORD]
        cdef int password_size
        cdef str username
        cdef bytes secret
        cdef object accepted
        cdef bytes attributes
        cdef Request request
        cdef uint8_t *reply
        cdef Py_ssize_t size
        cdef const char *text
        cdef Py_ssize_t text_size
        if outline(raw, received, &parts) != V_FINE or not is_plain_login(raw, &parts):
            return False
        peer = self.peer(address)
        if peer is None:
            return False
        if authenticity(raw, received, &parts, peer.secret) != V_FINE or objection(&parts, peer) != V_FINE:
            return False
        key_size = put_key(key, key, path_size, raw, parts.message_authenticator_at != 0)
        if self.intake.replies.look(key, key_size, raw, parts.size, self.now) != NULL:
            return False
        if self.intake.pending and PyBytes_FromStringAndSize(<const char *>key, key_size) in self.intake.pending:
            return False
        if peer.lane is None:
            peer.lane = Lane.__new__(Lane, peer, self.observer, None if self.believed is None else self.gate)
        lane = <Lane>peer.lane
        name = raw + parts.user_name_at + 2
        name_size = raw[parts.user_name_at + 1] - 2
        if may_be_hardware_address(name, name_size):
            return False
        if (
            name_size == PyBytes_GET_SIZE(lane.probe_user)
            and memcmp(name, PyBytes_AS_STRING(lane.probe_user), name_size) == 0
        ):
            return False
        try:
            username = PyUnicode_DecodeUTF8(<const char *>name, name_size, NULL)
        except UnicodeDecodeError:
            return False
        if lane.strips_realm:
            username = without_realm(username)
        text = PyUnicode_AsUTF8AndSize(username, &text_size)
        password_size = plain_password(raw, &parts, peer.secret, password)
        if password_size == 0:
            return False
        accepted = None
        if lane.who is not None:
            accepted = self.known(lane, <const uint8_t *>text, <int>text_size, password, password_size)
        if accepted is None:
            secret = PyBytes_FromStringAndSize(<const char *>password, password_size)
            explicit_bzero(password, LONGEST_PASSWORD)
            try:
                accepted = self.gate.known(lane.provider, username, secret, lane.source)
            except Exception:  # tried again, and told of, in the general way
                return False
        else:
            explicit_bzero(password, LONGEST_PASSWORD)
        if accepted is None:
            request = made_request(raw, &parts, peer, key, key_size, self.now)
            self.queue(socket, key, path_size, self.unknown(request, username, secret, self.now))
            return True
        attributes = self.attributes(accepted, peer.client)
        size = 0
        if attributes is not None:
            reply = socket.room()
            size = compose_reply(
                raw, &parts, peer.secret, ACCESS_ACCEPT, <const uint8_t *>PyBytes_AS_STRING(attributes),
                PyBytes_GET_SIZE(attributes), reply,
            )
        if size == 0:
            request = made_request(raw, &parts, peer, key, key_size, self.now)
            self.queue(socket, key, path_size, self.accepted(request, username, accepted, self.now))
            return True
        self.intake.replies.add(key, key_size, raw, parts.size, reply, <int>size, self.now)
        if lane.accepts is not None:
            lane.accepts.tell(<const uint8_t *>text, text_size, parts.message_authenticator_at != 0, self.at)
        else:
            self.observer.answered(
                <int>ACCESS_REQUEST, <int>ACCESS_ACCEPT, lane.app, lane.client, username, "", 0.0,
                parts.message_authenticator_at != 0,
            )
        socket.queue(key, path_size, <size_t>size)
        return True

    cdef object known(self, Lane lane, const uint8_t *name, int name_size, const uint8_t *secret, int secret_size):
        """The login if it is believed and nothing else is to be done; None says nothing."""
        cdef uint8_t folded[LONGEST_NAME]
        cdef uint8_t all_bits = 0
        cdef uint8_t c
        cdef int i
        # As in `CredentialsCache.key`; what would have to be trimmed, or may be, is left to it.
        if name_size > LONGEST_NAME or name[0] <= 0x20 or name[name_size - 1] <= 0x20:
            return None
        for i in range(name_size):
            c = name[i]
            all_bits |= c
            folded[i] = c | 0x20 if 0x41 <= c <= 0x5A else c
        if all_bits >= 0x80:
            return None
        return self.believed.known(lane.who, folded, name_size, secret, secret_size, self.now, lane.client)

    cdef bytes attributes(self, accepted, client):
        """What an Access-Accept to it carries, if that is known and always the same; None otherwise."""
        cdef object found = self.lasting.get(PyLong_FromVoidPtr(<void *>accepted))
        if found is not None and (<tuple>found)[0] is accepted and (<tuple>found)[1] is client:
            return <bytes>(<tuple>found)[2]
        return None
