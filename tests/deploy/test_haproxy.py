"""Two appliances behind a real HAProxy with the file in deploy/: addresses arrive, and a lost replica is left out."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.ldap import encode
from tests.process.running import BASE, PATIENCE_S, ROOT, Appliance, appliance, user_dn

HAPROXY = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(HAPROXY is None and not os.environ.get("CI"), reason="haproxy is not installed"),
]
CLIENT = "127.0.0.77"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Site:
    replicas: list[Appliance]
    ports: dict[str, int]

    def bind(self, password: str) -> int:
        """The result code of a login through the balancer, from an address of its own."""
        with socket.create_connection(("127.0.0.1", self.ports["ldap"]), PATIENCE_S, (CLIENT, 0)) as there:
            there.sendall(encode.bind(1, user_dn("alice"), password))
            answer = there.recv(4096)
            assert answer and answer[5] == 0x61, answer
            return answer[9]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("haproxy")
    trusted = ("--set", "listen.trusted_proxy_cidrs=127.0.0.1/32")
    with contextlib.ExitStack() as stack:
        replicas = [stack.enter_context(appliance(ROOT / "examples" / "directory.yaml", *trusted)) for _ in range(2)]
        ports = {"ldap": free_port(), "ldaps": free_port()}
        config = folder / "haproxy.cfg"
        config.write_text(configured(replicas, ports))
        balancer = stack.enter_context(subprocess.Popen([str(HAPROXY), "-db", "-f", str(config)]))
        stack.callback(balancer.terminate)
        found = Site(replicas, ports)
        until(lambda: all(replica.get("/-/ready")[0] == 200 for replica in replicas))
        until(lambda: balancer.poll() is None and reaches(found, 0) and reaches(found, 1))
        yield found


def configured(replicas: list[Appliance], ports: dict[str, int]) -> str:
    """The file in deploy/, with the addresses and ports of this machine."""
    text = (ROOT / "deploy/haproxy/haproxy.cfg").read_text()
    text = text.replace("bind :389", f"bind 127.0.0.1:{ports['ldap']}").replace(
        "bind :636", f"bind 127.0.0.1:{ports['ldaps']}"
    )
    text = text.replace("check port 9300", "check").replace("maxconn 20000", "maxconn 200")
    for service, port in (("ldap", 3389), ("ldaps", 6636)):
        for n, replica in enumerate(replicas):
            before = f"192.0.2.1{n + 1}:{port}"
            assert before in text
            after = f"127.0.0.1:{replica.ports[service]} port {replica.ports['metrics']}"
            text = text.replace(before, after)
    assert "192.0.2" not in re.sub(r"#.*", "", text)
    return text


def until(is_so: object) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, AssertionError):
            if is_so():
                return
        time.sleep(0.05)
    raise AssertionError("not in time")


def logins(replica: Appliance) -> list[str]:
    return [line for line in replica.raw if '"Bind request"' in line]


def reaches(site: Site, n: int) -> bool:
    site.bind("alice-pw")
    return bool(logins(site.replicas[n]))


def test_the_client_s_own_address_arrives(site: Site) -> None:
    assert [site.bind("alice-pw") for _ in range(6)] == [0] * 6
    assert site.bind("wrong") == 49
    until(lambda: sum(len(logins(replica)) for replica in site.replicas) >= 7)
    for line in (line for replica in site.replicas for line in logins(replica)):
        assert f'"client":"{CLIENT}"' in line, line
    # Both have had their share.
    assert all(logins(replica) for replica in site.replicas)


@pytest.mark.skipif(shutil.which("ldapsearch") is None, reason="ldap-utils is not installed")
@pytest.mark.parametrize("scheme", ["ldap", "ldaps"])
def test_ldapsearch_through_it(site: Site, scheme: str) -> None:
    command = [
        "ldapsearch",
        "-LLL",
        "-x",
        "-H",
        f"{scheme}://127.0.0.1:{site.ports[scheme]}",
        "-D",
        user_dn("ldapservice"),
    ]
    done = subprocess.run(
        [*command, "-w", "service-pw", "-b", BASE, "(cn=alice)", "mail"],
        capture_output=True,
        text=True,
        timeout=30,
        env={"PATH": "/usr/bin:/bin", "LDAPTLS_REQCERT": "never", "LDAPRC": "/dev/null"},
        check=False,
    )
    assert done.returncode == 0 and "mail: alice@" in done.stdout, done.stderr


def test_without_the_balancer_s_header_there_is_no_ldap(site: Site) -> None:
    with socket.create_connection(("127.0.0.1", site.replicas[0].ports["ldap"]), PATIENCE_S) as there:
        there.sendall(encode.bind(1, user_dn("alice"), "alice-pw"))
        there.settimeout(PATIENCE_S)
        with contextlib.suppress(ConnectionResetError):
            assert there.recv(4096) == b""


def test_a_replica_that_stops_loses_nothing(site: Site) -> None:
    """Last, for it ends one of them."""
    assert site.replicas[0].stop() == 0
    # Within the two checks that it takes to notice, connections go to the other one all the same.
    assert [site.bind("alice-pw") for _ in range(10)] == [0] * 10
