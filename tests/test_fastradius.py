"""The compiled packet core against the RFCs' vectors, hashlib, and packets that must be refused."""

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outpost import _fastradius
from outpost._fastradius import (
    Packet,
    SharedSecret,
    decode,
    encode_request,
    hide_user_password,
    unhide_user_password,
)
from outpost.errors import LimitExceeded
from tests import oracle_radius as oracle

NEMO = bytes.fromhex(
    "010000380f403f9473978057bd83d5cb98f4227a01066e656d6f02120dbe708d93d413ce3196e43f782a0aee0406c0a80110050600000003"
)
FLOPSY = bytes.fromhex(
    "010100472aee86f08d0d55969ca5978e0d3367a20108666c6f707379031316e97557c316185895f293ff634407727504"
    "06c0a801100506000000140606000000020706000000 01".replace(" ", "")
)
XYZZY = SharedSecret(b"xyzzy5461")
AUTHENTICATOR = bytes(range(16))
SECRETS = st.binary(min_size=1, max_size=130)


def good(data: bytes, secret: SharedSecret) -> Packet:
    packet = decode(data, secret)
    assert isinstance(packet, Packet), packet
    return packet


def test_rfc2865_7_1() -> None:
    packet = good(NEMO, XYZZY)
    assert (packet.code, packet.identifier, packet.user_name) == (1, 0, b"nemo")
    assert packet.user_password == b"arctangent"
    assert packet.authenticator.hex() == "0f403f9473978057bd83d5cb98f4227a"
    assert packet.attributes()[2:] == [(4, bytes([192, 168, 1, 16])), (5, bytes([0, 0, 0, 3]))]


def test_rfc2865_7_1_with_another_secret_is_another_password() -> None:
    assert good(NEMO, SharedSecret(b"xyzzy5462")).user_password != b"arctangent"


def test_rfc2865_7_2_chap() -> None:
    packet = good(FLOPSY, XYZZY)
    assert packet.user_name == b"flopsy" and not packet.has_user_password and packet.user_password is None
    assert packet.service_type == 2 and packet.chap_challenge == packet.authenticator
    assert packet.chap_password is not None
    digest = hashlib.md5(packet.chap_password[:1] + b"arctangent" + packet.chap_challenge).digest()
    assert packet.chap_password[1:] == digest


@pytest.mark.parametrize(
    ("text", "digest"),
    [
        (b"", "d41d8cd98f00b204e9800998ecf8427e"),
        (b"abc", "900150983cd24fb0d6963f7d28e17f72"),
        (b"1234567890" * 8, "57edf4a22be3c955ac49da2e2107b67a"),
    ],
)
def test_rfc1321_a5(text: bytes, digest: str) -> None:
    assert _fastradius.md5(text).hex() == digest


@pytest.mark.parametrize(
    ("key", "data", "digest"),
    [
        (b"\x0b" * 16, b"Hi There", "9294727a3638bb1c13f48ef8158bfc9d"),
        (b"Jefe", b"what do ya want for nothing?", "750c783e6ab0b503eaa86e310a5db738"),
        (b"\xaa" * 80, b"Test Using Larger Than Block-Size Key - Hash Key First", "6b1ab7fe4bd7bf8f0b62e6ce61b9d0cd"),
    ],
)
def test_rfc2202_2(key: bytes, data: bytes, digest: str) -> None:
    assert SharedSecret(key).hmac_md5(data).hex() == digest


@given(st.binary(max_size=300))
def test_md5_is_hashlibs(data: bytes) -> None:
    assert _fastradius.md5(data) == hashlib.md5(data).digest()


@given(SECRETS, st.binary(max_size=300))
def test_hmac_is_hmacs(secret: bytes, data: bytes) -> None:
    assert SharedSecret(secret).hmac_md5(data) == hmac.digest(secret, data, "md5")


@given(st.binary(max_size=128), SECRETS, st.binary(min_size=16, max_size=16))
def test_user_password_is_hidden_as_the_oracle_does(password: bytes, secret: bytes, authenticator: bytes) -> None:
    hidden = hide_user_password(password, SharedSecret(secret), authenticator)
    assert hidden == oracle.hide(password, secret, authenticator)
    assert unhide_user_password(hidden, SharedSecret(secret), authenticator) == password.rstrip(b"\0")


@pytest.mark.parametrize("size", [0, 1, 15, 17, 127, 129, 144])
def test_user_password_of_a_length_that_is_none(size: int) -> None:
    assert unhide_user_password(bytes(size), XYZZY, AUTHENTICATOR) is None
    if 0 < size < 129:
        body = oracle.attribute(2, bytes(size))
        packet = good(encode_request(1, 1, AUTHENTICATOR, body, XYZZY), XYZZY)
        assert packet.has_user_password and packet.user_password is None


def test_user_password_over_128_octets_is_refused() -> None:
    with pytest.raises(LimitExceeded):
        hide_user_password(bytes(129), XYZZY, AUTHENTICATOR)


BODIES = st.lists(
    st.tuples(st.sampled_from([1, 2, 3, 6, 24, 26, 31, 32, 33, 60, 79, 200]), st.binary(max_size=253)), max_size=14
).map(lambda found: b"".join(oracle.attribute(*one) for one in found))


@given(st.sampled_from([1, 4, 12, 40, 43]), st.binary(min_size=16, max_size=16), BODIES, SECRETS, st.booleans())
def test_requests_are_the_oracles(code: int, authenticator: bytes, body: bytes, secret: bytes, sign: bool) -> None:
    ours = encode_request(code, 7, authenticator, body, SharedSecret(secret), sign=sign)
    assert ours == oracle.request(code, 7, authenticator, body, secret, sign)
    packet = good(ours, SharedSecret(secret))
    assert packet.attributes() == oracle.attributes(ours) and packet.is_signed is sign


@given(st.binary(min_size=16, max_size=16), BODIES, SECRETS)
def test_message_authenticator_may_be_last(authenticator: bytes, body: bytes, secret: bytes) -> None:
    assert good(oracle.request(1, 7, authenticator, body, secret, last=True), SharedSecret(secret)).is_signed


@given(st.sampled_from([1, 4, 12, 40, 43]), BODIES, st.data())
def test_a_flipped_bit_of_a_signed_request_is_refused(code: int, body: bytes, data: st.DataObject) -> None:
    request = bytearray(encode_request(code, 7, AUTHENTICATOR, body, XYZZY))
    bit = data.draw(st.integers(0, len(request) * 8 - 1))
    request[bit // 8] ^= 1 << bit % 8
    verdict = decode(bytes(request), XYZZY)
    assert isinstance(verdict, int) and 1 <= verdict <= 7


@pytest.mark.parametrize("last", [False, True])
def test_one_octet_changed_to_anything_is_refused(last: bool) -> None:
    body = oracle.attribute(1, b"alice") + oracle.attribute(2, hide_user_password(b"wonder", XYZZY, AUTHENTICATOR))
    body += oracle.attribute(32, b"switch") + oracle.attribute(31, b"0" * 16)
    request = oracle.request(1, 7, AUTHENTICATOR, body, XYZZY.octets, last=last)
    assert good(request, XYZZY).is_signed
    for at, right in enumerate(request):
        for wrong in set(range(256)) - {right}:
            bent = request[:at] + bytes([wrong]) + request[at + 1 :]
            assert isinstance(decode(bent, XYZZY), int), (at, wrong)


def test_a_request_that_was_never_signed_is_none_that_is_damaged() -> None:
    hint = b"x" * 4 + bytes([80, 18]) + bytes(20)
    body = b"".join(oracle.attribute(31, bytes(16)) for _ in range(20)) + oracle.attribute(32, hint) * 20
    for sent in (body, body + oracle.attribute(2, bytes(16))):
        request = encode_request(1, 7, AUTHENTICATOR, sent, XYZZY, sign=False)
        assert not good(request, XYZZY).is_signed
        assert not good(request + oracle.attribute(80, bytes(16)), XYZZY).is_signed
    # Under another secret a hidden signature proves nothing, as anybody could have made it up.
    signed = bytearray(encode_request(1, 7, AUTHENTICATOR, body, SharedSecret(b"other")))
    signed[20] = 81
    assert not good(bytes(signed), XYZZY).is_signed


def test_another_secret_is_refused() -> None:
    for code, number in ((1, _fastradius.BAD_MESSAGE_AUTHENTICATOR), (4, _fastradius.BAD_REQUEST_AUTHENTICATOR)):
        assert decode(encode_request(code, 7, AUTHENTICATOR, b"", XYZZY), SharedSecret(b"xyzzy")) == number


def test_a_zero_message_authenticator_is_refused() -> None:
    unsigned = encode_request(1, 7, AUTHENTICATOR, oracle.attribute(80, bytes(16)), XYZZY, sign=False)
    assert decode(unsigned, XYZZY) == _fastradius.BAD_MESSAGE_AUTHENTICATOR


@pytest.mark.parametrize(
    ("body", "number"),
    [
        (oracle.attribute(80, bytes(15)), _fastradius.MALFORMED_MESSAGE_AUTHENTICATOR),
        (oracle.attribute(80, bytes(16)) * 2, _fastradius.MALFORMED_MESSAGE_AUTHENTICATOR),
        (b"\x01", _fastradius.BAD_ATTRIBUTE),
        (b"\x01\x00", _fastradius.BAD_ATTRIBUTE),
        (b"\x01\x01", _fastradius.BAD_ATTRIBUTE),
        (b"\x01\x03", _fastradius.BAD_ATTRIBUTE),
        (oracle.attribute(6, b"") * 201, _fastradius.TOO_MANY_ATTRIBUTES),
    ],
)
def test_malformed_attributes_are_refused(body: bytes, number: int) -> None:
    assert decode(encode_request(1, 7, AUTHENTICATOR, body, XYZZY, sign=False), XYZZY) == number


def test_lengths_that_are_none_are_refused() -> None:
    for size in range(20):
        assert decode(NEMO[:size], XYZZY) == _fastradius.TOO_SHORT
    for announced in (0, 19, 57, 4097, 65535):
        assert decode(NEMO[:2] + announced.to_bytes(2, "big") + NEMO[4:], XYZZY) == _fastradius.BAD_LENGTH
    assert decode(NEMO[:2] + (4097).to_bytes(2, "big") + bytes(5000), XYZZY) == _fastradius.BAD_LENGTH


def test_octets_after_the_length_are_padding() -> None:
    assert good(NEMO + b"padding", XYZZY).octets == NEMO


@given(st.binary(max_size=120), SECRETS)
def test_any_octets_get_the_oracles_verdict(data: bytes, secret: bytes) -> None:
    assert isinstance(decode(data, SharedSecret(secret)), Packet) is oracle.accepts(data, secret)


@given(st.sampled_from([2, 3, 5, 11]), BODIES, BODIES, SECRETS)
def test_replies_are_signed_and_echo_proxy_states_in_order(code: int, asked: bytes, told: bytes, secret: bytes) -> None:
    request = good(encode_request(1, 9, AUTHENTICATOR, asked, SharedSecret(secret)), SharedSecret(secret))
    told_list = list(oracle.attributes(NEMO[:2] + (20 + len(told)).to_bytes(2, "big") + bytes(16) + told) or [])
    told = b"".join(oracle.attribute(*pair) for pair in told_list if pair[0] != 33)
    proxied = [pair for pair in request.attributes() if pair[0] == 33]
    if 38 + len(told) + sum(len(value) + 2 for _, value in proxied) > 4096:
        with pytest.raises(LimitExceeded):
            request.reply(code, told)
        return
    reply = request.reply(code, told)
    assert reply[:2] == bytes((code, 9)) and oracle.response_holds(reply, AUTHENTICATOR, secret)
    found = oracle.attributes(reply)
    assert found is not None and found[1:] == [pair for pair in told_list if pair[0] != 33] + proxied


def test_reply_attributes_of_its_own_are_refused() -> None:
    request = good(NEMO, XYZZY)
    for body in (oracle.attribute(80, bytes(16)), oracle.attribute(33, b"x"), b"\x01", b"\x01\x09a"):
        with pytest.raises(ValueError, match="attribute"):
            request.reply(2, body)


def test_ambiguous_requests_are_told() -> None:
    for number in (1, 2, 24):
        body = oracle.attribute(number, bytes(16))
        assert not good(encode_request(1, 1, AUTHENTICATOR, body, XYZZY), XYZZY).is_ambiguous
        assert good(encode_request(1, 1, AUTHENTICATOR, body * 2, XYZZY), XYZZY).is_ambiguous


def test_methods_are_told() -> None:
    eap = good(
        encode_request(1, 1, AUTHENTICATOR, oracle.attribute(79, b"ab") + oracle.attribute(79, b"c"), XYZZY), XYZZY
    )
    assert eap.has_eap and eap.eap_message == b"abc"
    for vendor_type, is_ms_chap in ((1, True), (11, True), (25, True), (16, False)):
        value = (311).to_bytes(4, "big") + bytes((vendor_type, 2))
        packet = good(encode_request(1, 1, AUTHENTICATOR, oracle.attribute(26, value), XYZZY), XYZZY)
        assert packet.has_ms_chap is is_ms_chap


def test_an_empty_shared_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        SharedSecret(b"")


def test_nothing_secret_is_shown() -> None:
    assert "xyzzy" not in repr(XYZZY) and "nemo" not in repr(good(NEMO, XYZZY))


@pytest.mark.parametrize(
    ("name", "password", "extra", "found"),
    [
        (b"alice", b"wonder", b"", ("alice", b"wonder")),
        ("älice".encode(), b"\xff\xfe", oracle.attribute(6, b"\0\0\0\1"), ("älice", b"\xff\xfe")),
        (b"", b"wonder", b"", None),
        (b"al\0ice", b"wonder", b"", None),
        (b"\xff", b"wonder", b"", None),
        (b"alice", b"", b"", None),
        (b"alice", b"wonder", oracle.attribute(24, b"state"), None),
        (b"alice", b"wonder", oracle.attribute(3, bytes(17)), None),
        (b"alice", b"wonder", oracle.attribute(79, b"x"), None),
        (b"alice", b"wonder", oracle.attribute(6, b"\0\0\0\x0a"), None),
        (b"alice", b"wonder", oracle.attribute(1, b"bob"), None),
        (b"alice", b"wonder", oracle.attribute(26, b"\0\0\1\x37\x19\2"), None),
    ],
)
def test_plain_logins_are_told(name: bytes, password: bytes, extra: bytes, found: object) -> None:
    body = oracle.attribute(1, name) + oracle.attribute(2, hide_user_password(password, XYZZY, AUTHENTICATOR)) + extra
    assert good(encode_request(1, 1, AUTHENTICATOR, body, XYZZY), XYZZY).plain_login() == found
    status = good(encode_request(12, 1, AUTHENTICATOR, body, XYZZY), XYZZY)
    assert status.plain_login() is None
    unsigned = good(encode_request(1, 7, AUTHENTICATOR, body, XYZZY, sign=False), XYZZY)
    assert not unsigned.has_chargeable_user_identity
    named = good(encode_request(1, 7, AUTHENTICATOR, body + oracle.attribute(89, b"\0"), XYZZY), XYZZY)
    assert named.plain_login() is None and named.has_chargeable_user_identity and named.secret is XYZZY
    without = body[: 2 + len(name)]
    assert good(encode_request(1, 1, AUTHENTICATOR, without, XYZZY), XYZZY).plain_login() is None
