import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyrad.dictionary import Dictionary
from pyrad.packet import AuthPacket

from outpost._fastradius import SharedSecret, decode, encode_request
from outpost.radius.crypto import (
    chap_holds,
    decrypt_salted,
    encrypt_salted,
    message_authenticator_holds,
    response_authenticator_holds,
)

AUTHENTICATOR = bytes(range(16))
SALT = b"\x80\x01"
WORDS = Dictionary(io.StringIO("ATTRIBUTE User-Name 1 string\n"))


@given(st.binary(max_size=239), st.binary(min_size=1, max_size=80), st.binary(min_size=16, max_size=16))
def test_rfc2868_3_5_as_pyrad_does_it(plain: bytes, secret: bytes, authenticator: bytes) -> None:
    hidden = encrypt_salted(plain, secret, authenticator, SALT)
    assert decrypt_salted(hidden, secret, authenticator) == plain
    packet = AuthPacket(secret=secret, authenticator=authenticator, dict=WORDS)
    assert packet.SaltDecrypt(hidden) == plain
    assert decrypt_salted(packet.SaltCrypt(plain), secret, authenticator) == plain


def test_another_key_does_not_decrypt() -> None:
    hidden = encrypt_salted(b"key" * 10, b"secret", AUTHENTICATOR, SALT)
    assert decrypt_salted(hidden, b"secreT", AUTHENTICATOR) is None
    assert decrypt_salted(hidden, b"secret", bytes(16)) is None
    assert decrypt_salted(b"\x81" + hidden[1:], b"secret", AUTHENTICATOR) is None
    for broken in (hidden[:-1], hidden[:2], b"", b"\x00" + hidden[1:]):
        assert decrypt_salted(broken, b"secret", AUTHENTICATOR) is None


@pytest.mark.parametrize(("plain", "salt"), [(bytes(240), SALT), (b"x", b"\x7f\x01"), (b"x", b"\x80")])
def test_what_cannot_be_encrypted_is_refused(plain: bytes, salt: bytes) -> None:
    with pytest.raises(ValueError, match=r"salt|octets"):
        encrypt_salted(plain, b"secret", AUTHENTICATOR, salt)


def test_rfc2865_7_1_response_authenticator() -> None:
    request = bytes.fromhex("0f403f9473978057bd83d5cb98f4227a")
    reply = bytes.fromhex("0200002686fe220e7624ba2a1005f6bf9b55e0b20606000000010f06000000000e06c0a80103")
    assert response_authenticator_holds(reply, request, b"xyzzy5461")
    for bit in range(len(reply) * 8):
        bent = bytearray(reply)
        bent[bit // 8] ^= 1 << bit % 8
        assert not response_authenticator_holds(bytes(bent), request, b"xyzzy5461")
    assert not response_authenticator_holds(reply, request, b"xyzzy5462")


def test_rfc2865_7_2_chap() -> None:
    response = bytes.fromhex("16e97557c316185895f293ff6344077275")
    challenge = bytes.fromhex("2aee86f08d0d55969ca5978e0d3367a2")
    assert chap_holds(response, challenge, b"arctangent")
    for bit in range(len(response) * 8):
        bent = bytearray(response)
        bent[bit // 8] ^= 1 << bit % 8
        assert not chap_holds(bytes(bent), challenge, b"arctangent")
    assert not chap_holds(response, challenge, b"arctangen") and not chap_holds(response, bytes(16), b"arctangent")
    assert not chap_holds(response[:-1], challenge, b"arctangent") and not chap_holds(b"", challenge, b"arctangent")


def test_message_authenticators_of_the_packet_core_hold() -> None:
    secret = SharedSecret(b"secret")
    request = encode_request(1, 1, AUTHENTICATOR, b"\1\7alice", secret)
    assert message_authenticator_holds(request, 20, AUTHENTICATOR, b"secret")
    assert not message_authenticator_holds(request, 20, AUTHENTICATOR, b"secreT")
    packet = decode(request, secret)
    assert not isinstance(packet, int)
    reply = packet.reply(2, b"")
    assert message_authenticator_holds(reply, 20, AUTHENTICATOR, b"secret")
    assert response_authenticator_holds(reply, AUTHENTICATOR, b"secret")
    assert not message_authenticator_holds(reply, 20, bytes(16), b"secret")
    assert not message_authenticator_holds(reply[:-1], 20, AUTHENTICATOR, b"secret")
