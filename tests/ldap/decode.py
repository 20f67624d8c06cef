"""LDAP messages as a client reads them, taken apart without the code under test; anything odd is an AssertionError."""

from collections.abc import Iterator
from dataclasses import dataclass


def elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag octet and content of each element; lengths must be definite and as short as can be."""
    at = 0
    while at < len(data):
        tag, size = data[at], data[at + 1]
        at += 2
        if size >= 0x80:
            count = size & 0x7F
            assert 0 < count <= 4, "length form"
            size = int.from_bytes(data[at : at + count], "big")
            assert size >= max(0x80, 1 << 8 * (count - 1)), "a length in more octets than it needs"
            at += count
        assert at + size <= len(data), "an element past the end"
        yield tag, data[at : at + size]
        at += size


def cut(data: bytes) -> tuple[bytes, bytes]:
    """Whole messages, and what is left."""
    at, size = 0, len(data)
    while size - at >= 2:
        length, start = data[at + 1], at + 2
        if length & 0x80:
            start += length & 0x7F
            if start > size:
                break
            length = int.from_bytes(data[at + 2 : start], "big")
        if start + length > size:
            break
        at = start + length
    return data[:at], data[at:]


@dataclass(frozen=True)
class Message:
    message_id: int
    tag: int
    content: bytes
    controls: bytes = b""


def messages(data: bytes) -> list[Message]:
    """Every LDAPMessage in `data`, which must hold whole ones only."""
    found = []
    for tag, content in elements(data):
        assert tag == 0x30, "no LDAPMessage"
        (id_tag, number), (operation, inner), *rest = elements(content)
        assert id_tag == 0x02 and len(rest) <= 1 and all(t == 0xA0 for t, _ in rest), "no LDAPMessage"
        found.append(Message(int.from_bytes(number, "big"), operation, inner, rest[0][1] if rest else b""))
    return found


@dataclass(frozen=True)
class Entry:
    dn: bytes
    attributes: list[tuple[bytes, list[bytes]]]
    """Descriptions and values in the order they came."""

    def __getitem__(self, description: str) -> list[bytes]:
        (values,) = [values for name, values in self.attributes if name == description.encode()]
        return values

    @property
    def names(self) -> list[str]:
        return [name.decode() for name, _ in self.attributes]


def entry(content: bytes) -> Entry:
    """A SearchResultEntry (RFC 4511 4.5.2) without its own header."""
    (dn_tag, dn), (list_tag, listed) = elements(content)
    assert (dn_tag, list_tag) == (0x04, 0x30), "no SearchResultEntry"
    attributes = []
    for tag, partial in elements(listed):
        (type_tag, name), (set_tag, values) = elements(partial)
        assert (tag, type_tag, set_tag) == (0x30, 0x04, 0x31), "no PartialAttribute"
        found = list(elements(values))
        assert all(value_tag == 0x04 for value_tag, _ in found), "no AttributeValue"
        attributes.append((name, [value for _, value in found]))
    return Entry(dn, attributes)


def entries(data: bytes) -> list[Entry]:
    """The entries of a stream that holds nothing else."""
    found = messages(data)
    assert all(m.tag == 0x64 for m in found), "more than entries"
    return [entry(m.content) for m in found]


def result(content: bytes) -> tuple[int, bytes, bytes]:
    """resultCode, matchedDN and diagnosticMessage at the start of an LDAPResult (RFC 4511 4.1.9)."""
    (code_tag, code), (dn_tag, matched), (text_tag, text), *_ = elements(content)
    assert (code_tag, dn_tag, text_tag) == (0x0A, 0x04, 0x04), "no LDAPResult"
    return int.from_bytes(code, "big"), matched, text
