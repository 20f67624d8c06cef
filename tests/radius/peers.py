"""Programs of others: FreeRADIUS in front, Linux-PAM's RADIUS module, tshark reading."""

import asyncio
import contextlib
import ctypes
import ctypes.util
import json
import shutil
import socket
import struct
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

FREERADIUS = shutil.which("freeradius") or shutil.which("radiusd")
RADCLIENT = shutil.which("radclient")
TSHARK = shutil.which("tshark")
PAM_RADIUS = next(
    (path for root in ("/lib", "/usr/lib") for path in Path(root).glob("*/security/pam_radius_auth.so")), None
)
FRONT_SECRET = "front"

RADIUSD = """
name = radiusd
logdir = {folder}
run_dir = {folder}
libdir = /usr/lib/freeradius
max_request_time = 30
security {{ allow_vulnerable_openssl = yes }}
client localhost {{
    ipaddr = 127.0.0.1
    secret = {front}
}}
proxy server {{ default_fallback = no }}
home_server ours {{
    type = auth
    ipaddr = 127.0.0.1
    port = {home}
    secret = {secret}
    response_window = 1
    zombie_period = 20
    status_check = status-server
    check_interval = 6
    num_answers_to_alive = 3
}}
home_server_pool ours {{
    type = fail-over
    home_server = ours
}}
realm ours {{
    auth_pool = ours
    nostrip
}}
thread pool {{
    start_servers = 1
    max_servers = 4
    min_spare_servers = 1
    max_spare_servers = 2
    max_requests_per_server = 0
}}
modules {{ }}
server front {{
    listen {{
        type = auth
        ipaddr = 127.0.0.1
        port = {port}
    }}
    authorize {{
        update control {{ Proxy-To-Realm := "ours" }}
    }}
}}
"""


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.asynccontextmanager
async def freeradius(folder: Path, home: int, secret: bytes) -> AsyncIterator[int]:
    """FreeRADIUS that hands every login to 127.0.0.1:home; its own port."""
    port = free_port()
    text = RADIUSD.format(folder=folder, front=FRONT_SECRET, home=home, secret=secret.decode(), port=port)
    (folder / "radiusd.conf").write_text(text)
    (folder / "dictionary").write_text("$INCLUDE /usr/share/freeradius/dictionary\n")
    process = await asyncio.create_subprocess_exec(
        *(str(FREERADIUS), "-X", "-d", str(folder)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    said = []
    while line := await asyncio.wait_for(process.stdout.readline(), 20):
        said.append(line.decode(errors="replace"))
        if b"Ready to process requests" in line:
            break
    assert process.returncode is None and said and "Ready" in said[-1], "".join(said[-20:])
    rest = asyncio.create_task(process.stdout.read())
    try:
        yield port
    finally:
        process.terminate()
        await process.wait()
        await rest


async def radclient(port: int, asked: str, secret: str, kind: str = "auth") -> str:
    """What radclient prints."""
    process = await asyncio.create_subprocess_exec(
        *(str(RADCLIENT), "-x", "-r", "1", "-t", "5", f"127.0.0.1:{port}", kind, secret),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate(asked.encode())
    return out.decode()


class _Message(ctypes.Structure):
    _fields_ = [("style", ctypes.c_int), ("text", ctypes.c_char_p)]


class _Response(ctypes.Structure):
    _fields_ = [("text", ctypes.c_void_p), ("code", ctypes.c_int)]


_CONVERSE = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_int,
    ctypes.POINTER(ctypes.POINTER(_Message)),
    ctypes.POINTER(ctypes.POINTER(_Response)),
    ctypes.c_void_p,
)


class _Conversation(ctypes.Structure):
    _fields_ = [("converse", _CONVERSE), ("data", ctypes.c_void_p)]


def pam_login(folder: Path, port: int, secret: bytes, username: str, answer: Callable[[str], str]) -> int:
    """pam_authenticate through pam_radius_auth; answer: prompt to answer. 0 is success (PAM_SUCCESS)."""
    (folder / "servers").write_text(f"127.0.0.1:{port} {secret.decode()} 5\n")
    (folder / "servers").chmod(0o600)
    (folder / "outpost").write_text(f"auth required {PAM_RADIUS} conf={folder / 'servers'} retry=1\n")
    pam, libc = ctypes.CDLL(ctypes.util.find_library("pam")), ctypes.CDLL(None)
    libc.calloc.restype = libc.strdup.restype = ctypes.c_void_p
    libc.strdup.argtypes = [ctypes.c_char_p]

    def converse(count: int, messages: object, responses: object, _data: object) -> int:
        memory = libc.calloc(count, ctypes.sizeof(_Response))
        responses[0] = ctypes.cast(memory, ctypes.POINTER(_Response))  # type: ignore[index]
        for i in range(count):
            message = messages[i][0]  # type: ignore[index]
            if message.style in (1, 2):  # PAM_PROMPT_ECHO_OFF, PAM_PROMPT_ECHO_ON
                responses[0][i].text = libc.strdup(answer(message.text.decode()).encode())  # type: ignore[index]
        return 0

    talk = _Conversation(_CONVERSE(converse), None)
    handle = ctypes.c_void_p()
    start = pam.pam_start_confdir(
        b"outpost", username.encode(), ctypes.byref(talk), str(folder).encode(), ctypes.byref(handle)
    )
    assert start == 0
    result = pam.pam_authenticate(handle, 0)
    pam.pam_end(handle, result)
    return int(result)


def tshark(folder: Path, packets: list[bytes], secret: bytes) -> list[dict[str, Any]]:
    """How tshark reads a request (odd position: reply) sequence on port 1812: the `radius` layer of each packet."""
    capture = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 228)
    for number, packet in enumerate(packets):
        ports = (40000, 1812) if number % 2 == 0 else (1812, 40000)
        udp = struct.pack(">HHHH", *ports, 8 + len(packet), 0) + packet
        home = bytes([127, 0, 0, 1])
        frame = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), number, 0, 64, 17, 0) + home * 2 + udp
        capture += struct.pack("<IIII", number, 0, len(frame), len(frame)) + frame
    path = folder / "radius.pcap"
    path.write_bytes(capture)
    done = subprocess.run(
        [
            *(str(TSHARK), "-r", str(path), "-T", "json", "--no-duplicate-keys"),
            *("-o", f"radius.shared_secret:{secret.decode()}", "-o", "radius.validate_authenticator:TRUE"),
        ],
        capture_output=True,
        check=True,
        timeout=60,
    )
    return [one["_source"]["layers"] for one in json.loads(done.stdout)]
