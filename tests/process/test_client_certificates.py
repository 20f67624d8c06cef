"""The real process and client certificates: who gets in, until the file or the authority says otherwise."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from tests.ldap import pki
from tests.process.running import BASE, Appliance, appliance, environment, user_dn

CA = pki.authority("Client CA")
FILE = """
version: 1
entries:
  - model: authentik_providers_ldap.ldapprovider
    id: directory
    identifiers: {{name: directory}}
    attrs: {{base_dn: "{base}"}}
  - model: authentik_core.application
    id: application
    identifiers: {{slug: directory}}
    attrs: {{name: Directory, provider: !KeyOf directory}}
  - model: authentik_core.group
    id: staff
    identifiers: {{name: staff}}
  - model: authentik_policies.policybinding
    identifiers: {{order: 0, target: !KeyOf application, group: !KeyOf staff}}
  - model: authentik_core.user
    identifiers: {{username: ann}}
    attrs: {{is_active: {is_active}, email: ann@example.com, groups: [!KeyOf staff]}}
  - model: authentik_core.user
    identifiers: {{username: bob}}
    attrs: {{email: bob@example.com}}
"""


def write(path: Path, is_active: str = "true") -> None:
    new = path.with_suffix(".new")
    new.write_text(FILE.format(base=BASE, is_active=is_active))
    new.replace(path)


class Visitor:
    """`ldapwhoami` with a certificate."""

    def __init__(self, running: Appliance, folder: Path, pair: pki.Pair) -> None:
        folder.mkdir()
        cert, key = pair.write(str(folder))
        self.environ = environment(LDAPTLS_CERT=cert, LDAPTLS_KEY=key, LDAPTLS_REQCERT="never")
        self.running = running

    def ask(self, *flags: str) -> tuple[int, str]:
        for url, *more in ((self.running.url("ldaps"),), (self.running.url("ldap"), "-ZZ")):
            command = ["ldapwhoami", "-Q", "-Y", "EXTERNAL", "-H", url, *more, *flags]
            done = subprocess.run(command, capture_output=True, text=True, env=self.environ, timeout=30)
        return done.returncode, done.stdout + done.stderr


@pytest.mark.interop
@pytest.mark.skipif(not shutil.which("ldapwhoami"), reason="no ldapwhoami")
def test_certificates_log_in(tmp_path: Path) -> None:
    path, bundle = tmp_path / "directory.yaml", tmp_path / "clients.pem"
    write(path)
    bundle.write_bytes(CA.pem)
    anns = CA.issue(cn="ann", usage=pki.CLIENT)
    with appliance(path, "--set", f"ldap.client_ca={bundle}") as running:
        ann = Visitor(running, tmp_path / "ann", anns)
        assert ann.ask() == (0, f"dn:{user_dn('ann')}\n")
        assert ann.ask("-X", "u:bob")[0] == 49
        bob = Visitor(running, tmp_path / "bob", CA.issue(cn="bob"))
        assert bob.ask()[0] == 50, "not of the staff"
        for name, pair in (
            ("carl", CA.issue(cn="carl")),
            ("mail", CA.issue(cn="ann@example.com")),
            ("two", CA.issue(cn=["ann", "bob"])),
            ("none", CA.issue(subject=[x509.NameAttribute(NameOID.ORGANIZATION_NAME, "ann")])),
        ):
            assert Visitor(running, tmp_path / name, pair).ask()[0] == 49, name
        stranger = Visitor(running, tmp_path / "stranger", pki.Issuer("Client CA").issue(cn="ann"))
        assert stranger.ask()[0] not in {0, 49, 50}
        write(path, "false")
        running.event("^directory read")
        assert ann.ask()[0] == 49, "deactivated"
        write(path)
        running.event("^directory read")
        assert ann.ask()[0] == 0
        bundle.write_bytes(CA.pem + CA.revoke(anns))
        running.send(signal.SIGHUP)
        # Nothing is said about it, so that it is asked again for a while.
        for _ in range(100):
            if ann.ask()[0] not in {0, 49, 50}:
                break
        else:
            pytest.fail("the revoked certificate still logs in")
        assert bob.ask()[0] == 50
        bundle.write_bytes(b"")
        running.send(signal.SIGHUP)
        assert str(bundle) in running.event("^the authorities of clients stay")["event"]
        for secret in (anns.key_pem(), pki.authority("Client CA").pair.key_pem()):
            assert not [line for line in secret.decode().splitlines()[1:-1] if line in running.said]


@pytest.mark.parametrize("command", ["check", "run"])
def test_an_authority_that_cannot_be_read(command: str, tmp_path: Path) -> None:
    path, bundle = tmp_path / "directory.yaml", tmp_path / "clients.pem"
    write(path)
    options = ["--directory", str(path), "--set", f"ldap.client_ca={bundle}"]
    if command == "run":
        options += [f"--set=listen.{name}=127.0.0.1:0" for name in ("ldap", "ldaps", "radius", "metrics")]
    for contents in (None, b"garbage"):
        if contents is not None:
            bundle.write_bytes(contents)
        done = subprocess.run(
            [sys.executable, "-m", "outpost", command, *options],
            capture_output=True,
            text=True,
            env=environment(),
            timeout=30,
        )
        assert done.returncode == 2, done.stderr
        assert "ldap.client_ca" in done.stdout + done.stderr
