"""Start and stop the servers under load, each pinned to one processor, on loopback only."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench import generators, population

SERVER_CPU, CLIENT_CPU = 0, 1
START_S = 60.0

SLAPD_SCHEMA = """\
attributetype ( 1.2.840.113556.1.4.221 NAME 'sAMAccountName' EQUALITY caseIgnoreMatch
  SUBSTR caseIgnoreSubstringsMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 SINGLE-VALUE )
objectclass ( 1.3.6.1.4.1.99999.2.1 NAME 'user' SUP top AUXILIARY MAY ( sAMAccountName ) )
"""

SLAPD_CONF = """\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/nis.schema
include /etc/ldap/schema/inetorgperson.schema
include {work}/ak.schema
pidfile {work}/slapd.pid
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload memberof
sizelimit unlimited
loglevel none
{tls}
database mdb
suffix "{base}"
directory {work}/db
maxsize 1073741824
index objectClass,cn,uid,mail,uidNumber,memberOf,member eq
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact="cn=ldapservice,ou=users,{base}" read by self read by anonymous auth by * none
"""

RADIUSD_CONF = """\
prefix = /usr
name = freeradius
confdir = {work}
raddbdir = {work}
logdir = {work}/log
run_dir = {work}
libdir = /usr/lib/freeradius
pidfile = {work}/pid
max_requests = 65536
security {{
  allow_vulnerable_openssl = yes
  reject_delay = 0
  status_server = yes
}}
log {{
  destination = files
  file = {work}/log/radius.log
  auth = yes
}}
client lab {{
  ipaddr = 127.0.0.0/8
  secret = {secret}
}}
thread pool {{
  start_servers = 1
  max_servers = 1
}}
modules {{
  pap {{
  }}
  files {{
    usersfile = {work}/users
  }}
}}
server default {{
  listen {{
    type = auth
    ipaddr = 127.0.0.1
    port = {port}
  }}
  authorize {{
    files
    pap
  }}
  authenticate {{
    Auth-Type PAP {{
      pap
    }}
  }}
  post-auth {{
    update reply {{
      &Message-Authenticator := 0x00
    }}
  }}
}}
"""


@dataclass(frozen=True)
class Server:
    """A running server: its process and ports (0 where it has none)."""

    name: str
    pid: int
    ldap: int = 0
    ldaps: int = 0
    radius: int = 0


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port nobody listens on at this moment."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"nobody listens on {port}")


def _pinned(command: list[str]) -> list[str]:
    return ["taskset", "-c", str(SERVER_CPU), *command]


@contextlib.contextmanager
def _running(command: list[str], log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        process = subprocess.Popen(_pinned(command), stdout=out, stderr=out, env={**os.environ, **environment})
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@dataclass(frozen=True)
class Population:
    """What every server is filled with: sizes, and the certificate and key (PEM) that they show."""

    users: int
    groups: int
    pair: tuple[str, str]


@contextlib.contextmanager
def outpost(work: Path, people: Population, *options: str) -> Iterator[Server]:
    """The appliance on its embedded directory, default settings but `options`, logging each request to a file."""
    directory = work / "directory.yaml"
    directory.write_text("".join(population.blueprint(people.users, people.groups, people.pair)))
    with appliance(work, "--directory", str(directory), *options) as server:
        yield server


@contextlib.contextmanager
def appliance(work: Path, *options: str, **variables: str) -> Iterator[Server]:
    """The appliance with these options and environment variables, logging into `work`, once it is ready."""
    ldap, ldaps, metrics = free_port(), free_port(), free_port()
    radius = free_port(socket.SOCK_DGRAM)
    environment = {
        "AUTHENTIK_LISTEN__LDAP": f"127.0.0.1:{ldap}",
        "AUTHENTIK_LISTEN__LDAPS": f"127.0.0.1:{ldaps}",
        "AUTHENTIK_LISTEN__RADIUS": f"127.0.0.1:{radius}",
        "AUTHENTIK_LISTEN__METRICS": f"127.0.0.1:{metrics}",
        **variables,
    }
    command = [sys.executable, "-m", "outpost", "run", *options]
    with _running(command, work / "outpost.log", **environment) as process:
        _wait_for(ldap, process)
        _wait_until_ready(metrics)
        yield Server("outpost", process.pid, ldap, ldaps, radius)


def _wait_until_ready(port: int) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as s:
            s.sendall(b"GET /-/ready HTTP/1.0\r\n\r\n")
            if s.recv(64).split(b" ")[1:2] == [b"200"]:
                return
        time.sleep(0.1)
    raise RuntimeError("outpost did not become ready")


@contextlib.contextmanager
def slapd(work: Path, people: Population) -> Iterator[Server]:
    """OpenLDAP's slapd on the same data, indexed, with its default threads, not logging."""
    program = shutil.which("slapd", path="/usr/sbin:/usr/bin") or ""
    (work / "db").mkdir()
    (work / "ak.schema").write_text(SLAPD_SCHEMA)
    for name, text in zip(("cert.pem", "key.pem"), people.pair, strict=True):
        (work / name).write_text(text)
    tls = f"TLSCertificateFile {work}/cert.pem\nTLSCertificateKeyFile {work}/key.pem"
    conf = work / "slapd.conf"
    conf.write_text(SLAPD_CONF.format(work=work, base=population.BASE_DN, tls=tls))
    data = work / "data.ldif"
    data.write_text("".join(population.ldif(people.users, people.groups)))
    added = subprocess.run(
        ["/usr/sbin/slapadd", "-q", "-f", str(conf), "-l", str(data)], check=False, capture_output=True, text=True
    )
    if added.returncode:
        raise RuntimeError(f"slapadd: {added.stderr[-500:]}")
    ldap, ldaps = free_port(), free_port()
    urls = f"ldap://127.0.0.1:{ldap} ldaps://127.0.0.1:{ldaps}"
    with _running([program, "-f", str(conf), "-h", urls, "-d", "0"], work / "slapd.out") as process:
        _wait_for(ldap, process)
        yield Server("slapd", process.pid, ldap, ldaps)


@contextlib.contextmanager
def freeradius(work: Path, people: Population) -> Iterator[Server]:
    """FreeRADIUS on the same users, one thread, signing its answers and logging each login to a file."""
    (work / "log").mkdir()
    port = free_port(socket.SOCK_DGRAM)
    (work / "radiusd.conf").write_text(RADIUSD_CONF.format(work=work, secret=population.SECRET, port=port))
    (work / "users").write_text("".join(population.radius_users(people.users)))
    with _running(["freeradius", "-f", "-d", str(work), "-n", "radiusd"], work / "radiusd.out") as process:
        time.sleep(2)
        if process.poll() is not None:
            raise RuntimeError((work / "radiusd.out").read_text())
        yield Server("freeradius", process.pid, radius=port)


@contextlib.contextmanager
def nullldap(work: Path, people: Population) -> Iterator[Server]:
    """The LDAP floor: canned answers."""
    del people
    port = free_port()
    with _running([str(generators.BIN / "nullldap"), str(port)], work / "nullldap.out") as process:
        _wait_for(port, process)
        yield Server("nullldap", process.pid, ldap=port)


@contextlib.contextmanager
def nullrad(work: Path, people: Population) -> Iterator[Server]:
    """The RADIUS floor: verifies and signs, knows nobody."""
    del people
    port = free_port(socket.SOCK_DGRAM)
    with _running([str(generators.BIN / "nullrad"), str(port)], work / "nullrad.out") as process:
        time.sleep(0.5)
        yield Server("nullrad", process.pid, radius=port)


STARTS: Mapping[str, Callable[[Path, Population], contextlib.AbstractContextManager[Server]]] = {
    "outpost": outpost,
    "slapd": slapd,
    "freeradius": freeradius,
    "nullldap": nullldap,
    "nullrad": nullrad,
}


def present(name: str) -> bool:
    """Whether the server can be started here: the peers' programs have to be installed, the others are ours."""
    return name not in {"slapd", "freeradius"} or shutil.which(name, path="/usr/sbin:/usr/bin:/sbin") is not None
