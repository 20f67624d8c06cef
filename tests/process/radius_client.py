"""One RADIUS request with pyrad."""

from io import StringIO

from pyrad.client import Client
from pyrad.dictionary import Dictionary
from pyrad.packet import AccessRequest

DICTIONARY = """
ATTRIBUTE User-Name 1 string
ATTRIBUTE User-Password 2 string encrypt=1
ATTRIBUTE Reply-Message 18 string
ATTRIBUTE NAS-Identifier 32 string
ATTRIBUTE Message-Authenticator 80 octets
"""


def answer_code(port: int, user: str, password: str, secret: str, timeout_s: float = 10.0) -> int:
    """The code of the reply. Raises pyrad.client.Timeout, and AssertionError for a reply whose signature is wrong."""
    client = Client(server="127.0.0.1", authport=port, secret=secret.encode(), dict=Dictionary(StringIO(DICTIONARY)))
    client.timeout, client.retries = timeout_s, 1
    try:
        request = client.CreateAuthPacket(code=AccessRequest, User_Name=user, message_authenticator=True)
        request["User-Password"] = request.PwCrypt(password)
        answer = client.SendPacket(request)
        assert answer.verify_message_authenticator(original_authenticator=request.authenticator)
        return int(answer.code)
    finally:
        client._CloseSocket()
