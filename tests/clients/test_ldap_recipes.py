"""What the recipes for LDAP clients tell people to write, in the programs that they are for."""

import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import geteuid
from pathlib import Path

import pytest

from outpost.config import settings
from outpost.ldap.filter import parse_filter
from tests.ldap.pki import Issuer
from tests.process.running import ROOT, Appliance, appliance

PAGES = sorted(page for page in (ROOT / "docs" / "clients").glob("*.md") if not page.stem.startswith("radius-"))
RECIPES = [page for page in PAGES if page.stem != "README"]
TRIED = "*Tried by us with this text"
UNTRIED = "*From its documentation; not run by us.*"
RUN = {"apache", "dovecot", "nslcd", "postfix", "postgresql", "sssd"}


def blocks(name: str) -> list[str]:
    text = (ROOT / "docs" / "clients" / f"{name}.md").read_text()
    return re.findall(r"^```[a-z]*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


# -- the pages ------------------------------------------------------------------------------------


def test_there_are_recipes() -> None:
    wanted = """sssd nslcd dovecot postfix nextcloud jellyfin gitlab gitea keycloak proxmox jenkins grafana synology
    qnap truenas vcenter apache postgresql pfsense"""
    assert {page.stem for page in RECIPES} == set(wanted.split())


@pytest.mark.parametrize("page", RECIPES, ids=lambda page: page.stem)
def test_a_recipe_says_whether_it_was_tried(page: Path) -> None:
    text = page.read_text()
    assert (TRIED in text) is (page.stem in RUN) and (UNTRIED in text) is not (page.stem in RUN)
    assert f"({page.name})" in (page.parent / "README.md").read_text()


@pytest.mark.parametrize("page", RECIPES, ids=lambda page: page.stem)
def test_filters_of_a_recipe_are_filters(page: Path) -> None:
    for text in re.findall(r"\([&|(].*\)\)|\([A-Za-z]+=[^()]*\)", page.read_text()):
        if "=" in text and not text.startswith("(the "):
            parse_filter(re.sub(r"[%{$][A-Za-z{}0-9]*\}*", "x", text))


@pytest.mark.parametrize("page", RECIPES, ids=lambda page: page.stem)
def test_settings_of_a_recipe_are_settings(page: Path, tmp_path: Path) -> None:
    for block in re.findall(r"^```toml\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
        if "[provider." not in block:
            continue  # the client's own
        path = tmp_path / "outpost.toml"
        path.write_text(block if block.startswith("version") else f"version = 1\n{block}")
        settings.load(path, {"OUTPOST_DIRECTORY": "unused"})


# -- the programs ---------------------------------------------------------------------------------


@dataclass
class World:
    """The example directory under TLS."""

    running: Appliance
    ca: Path

    def recipe(self, name: str, number: int = 0) -> str:
        """A block of the page, for this server."""
        text = blocks(name)[number].replace("ldap.example.com:636", f"localhost:{self.running.ports['ldaps']}")
        return text.replace("SERVICE-PASSWORD", "service-pw").replace("/etc/ssl/certs/ldap-ca.pem", str(self.ca))


@contextmanager
def folder() -> Iterator[Path]:
    """One that daemons can read under names of their own; pytest's are for nobody else."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        yield place


@pytest.fixture
def open_path() -> Iterator[Path]:
    with folder() as place:
        yield place


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with folder() as place:
        yield from serving(place)


def serving(place: Path) -> Iterator[World]:
    authority = Issuer("recipes")
    # OpenLDAP's library takes the machine's own name for localhost.
    pair = authority.issue("localhost", socket.gethostname(), socket.getfqdn(), cn="localhost")
    (place / "tls").mkdir()
    (place / "ca.pem").write_bytes(authority.pem)
    (place / "tls" / "fullchain.pem").write_bytes(pair.pem)
    (place / "tls" / "privkey.pem").write_bytes(pair.key_pem())
    text = (
        (ROOT / "examples" / "directory.yaml").read_text().replace("      # certificate: !K", "      certificate: !K")
    )
    text = re.sub(
        r"^  # (- model: authentik_crypto.*?privkey.pem)$", _uncommented, text, flags=re.DOTALL | re.MULTILINE
    )
    (place / "directory.yaml").write_text(text)
    with appliance(place / "directory.yaml") as running:
        while running.get("/-/ready")[0] != 200:
            pass
        yield World(running, place / "ca.pem")


def _uncommented(match: re.Match[str]) -> str:
    return re.sub(r"^  # ?", "  ", match[0], flags=re.MULTILINE)


def needs(*programs: str, root: bool = False) -> Callable[..., object]:
    found = [shutil.which(one, path="/usr/bin:/usr/sbin:/bin:/sbin") for one in programs]
    missing = [one for one, path in zip(programs, found, strict=True) if path is None]
    reason = f"not installed: {', '.join(missing)}" if missing else "needs root"

    def marked(test: Callable[..., object]) -> Callable[..., object]:
        test = pytest.mark.skipif(bool(missing) or (root and geteuid() != 0), reason=reason)(test)
        return pytest.mark.interop(pytest.mark.slow(test))

    return marked


def run(*command: str, given: str = "", **environ: str) -> tuple[int, str]:
    path = {"PATH": "/usr/bin:/usr/sbin:/bin:/sbin"}
    done = subprocess.run(
        command, input=given, capture_output=True, text=True, timeout=60, check=False, env={**path, **environ}
    )
    return done.returncode, done.stdout + done.stderr


@contextmanager
def daemon(*command: str, log: Path, **environ: str) -> Iterator[None]:
    with log.open("w") as said:
        env = {"PATH": "/usr/bin:/usr/sbin:/bin:/sbin", **environ}
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=env)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def until(true: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, log.read_text()[-2000:]
        time.sleep(0.1)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@needs("postmap")
def test_postfix(world: World, open_path: Path) -> None:
    (open_path / "main.cf").write_text("compatibility_level = 3.6\n")
    known = Path("/etc/postfix/dynamicmaps.cf")
    if known.exists():
        shutil.copy(known, open_path)
    mailboxes, members = open_path / "mailboxes.cf", open_path / "members.cf"
    connection = world.recipe("postfix")
    mailboxes.write_text(f"{connection}tls_ca_cert_file = {world.ca}\n")
    common = "".join(line for line in connection.splitlines(True) if not line.startswith(("search", "query", "result")))
    members.write_text(f"{common}tls_ca_cert_file = {world.ca}\n{world.recipe('postfix', 1)}")
    for table, key, status, wanted in (
        (mailboxes, "alice@example.com", 0, "alice@example.com"),
        (mailboxes, "mallory@example.com", 1, ""),
        (mailboxes, "*@example.com", 1, ""),
        (mailboxes, "nobody@example.com", 1, ""),
        (members, "labstaff@example.com", 0, "alice@example.com"),
        (members, "nothing@example.com", 1, ""),
    ):
        found, said = run("postmap", "-c", str(open_path), "-q", key, f"ldap:{table}")
        assert (found, wanted in said) == (status, True), (key, said)
    mailboxes.write_text(mailboxes.read_text().replace("service-pw", "wrong"))
    assert run("postmap", "-c", str(open_path), "-q", "alice@example.com", f"ldap:{mailboxes}")[0] != 0


@needs("dovecot", "doveadm", root=True)
def test_dovecot(world: World, open_path: Path) -> None:
    (open_path / "dovecot-ldap.conf.ext").write_text(f"{world.recipe('dovecot')}tls_ca_cert_file = {world.ca}\n")
    config, log = open_path / "dovecot.conf", open_path / "log"
    table = f"{{\n  driver = ldap\n  args = {open_path}/dovecot-ldap.conf.ext\n}}\n"
    config.write_text(
        f"base_dir = {open_path}/run\nstate_dir = {open_path}/state\nlog_path = {log}\nprotocols =\nssl = no\n"
        f"mail_uid = 65534\nmail_gid = 65534\nfirst_valid_uid = 1\npassdb {table}userdb {table}"
    )
    with daemon("dovecot", "-F", "-c", str(config), log=open_path / "out"):
        until((open_path / "run" / "auth-client").exists, open_path / "out")

        def allowed(name: str, password: str) -> bool:
            return run("doveadm", "-c", str(config), "auth", "test", name, password)[0] == 0

        assert allowed("alice@example.com", "alice-pw"), log.read_text()
        assert allowed("dave@example.com", "dave-printer-app-password")
        assert not allowed("alice@example.com", "wrong") and not allowed("alice@example.com", "")
        assert not allowed("mallory@example.com", "mallory-pw") and not allowed("*", "alice-pw")
        status, said = run("doveadm", "-c", str(config), "user", "bob@example.com")
        assert status == 0 and "/var/mail/example.com/bob" in said
        assert run("doveadm", "-c", str(config), "user", "nobody@example.com")[0] != 0
        assert "alice@example.com" in run("doveadm", "-c", str(config), "user", "*")[1]


MODULES = "mpm_event authn_core authz_core authz_user auth_basic ldap authnz_ldap"


@needs("apache2", "curl", root=True)
def test_apache(world: World, open_path: Path) -> None:
    port, log = free_port(), open_path / "error.log"
    (open_path / "intern").mkdir()
    (open_path / "intern" / "page.txt").write_text("inside")
    loaded = "".join(f"LoadModule {one}_module /usr/lib/apache2/modules/mod_{one}.so\n" for one in MODULES.split())
    (open_path / "httpd.conf").write_text(
        f"{loaded}ServerName localhost\nListen 127.0.0.1:{port}\nPidFile {open_path}/pid\nErrorLog {log}\n"
        f"User www-data\nGroup www-data\nDocumentRoot {open_path}\n<Directory {open_path}>\nRequire all granted\n"
        f"</Directory>\n{world.recipe('apache')}"
    )

    def status(name: str, password: str) -> str:
        url = f"http://127.0.0.1:{port}/intern/page.txt"
        return run("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-u", f"{name}:{password}", url)[1]

    with daemon("apache2", "-X", "-f", str(open_path / "httpd.conf"), log=open_path / "out"):
        until(lambda: status("nobody", "x") != "000", open_path / "out")
        assert status("alice", "alice-pw") == "200", log.read_text()
        assert status("alice", "wrong") == status("alice", "") == status("*", "alice-pw") == "401"
        assert status("bob", "bob-pw") == "401", "not in the group"
        assert status("alice", "alice-pw") == "200"


POSTGRES = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), Path("/nowhere"))


@needs("psql", root=True)
@pytest.mark.skipif(not (POSTGRES / "initdb").exists(), reason="no PostgreSQL server")
@pytest.mark.parametrize("line", [0, 1], ids=["search", "prefix"])
def test_postgresql(world: World, open_path: Path, line: int) -> None:
    port, data, log = free_port(), open_path / "data", open_path / "out"
    data.mkdir()
    shutil.chown(data, "postgres", "postgres")
    as_postgres = ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups")
    status, said = run(*as_postgres, str(POSTGRES / "initdb"), "-D", str(data), "-A", "trust", "-N")
    assert status == 0, said
    recipe = [one for one in world.recipe("postgresql").splitlines() if one.startswith("hostssl")][line]
    recipe = recipe.replace("ldapserver=ldap.example.com", "ldapserver=localhost")
    recipe = recipe.replace("ldapport=636", f"ldapport={world.running.ports['ldaps']}")
    (data / "pg_hba.conf").write_text(f"local all all trust\n{recipe.replace('hostssl', 'host', 1)}\n")
    server = (str(POSTGRES / "postgres"), "-D", str(data), "-p", str(port), "-k", str(data), "-h", "127.0.0.1")
    with daemon(*as_postgres, *server, log=log, LDAPTLS_CACERT=str(world.ca)):
        until(lambda: run("psql", "-h", str(data), "-p", str(port), "-U", "postgres", "-c", "select 1")[0] == 0, log)
        for role in ("alice", "mallory"):
            run("psql", "-h", str(data), "-p", str(port), "-U", "postgres", "-c", f"create role {role} login")

        def let_in(role: str, password: str) -> bool:
            arguments = ("-h", "127.0.0.1", "-p", str(port), "-U", role, "-d", "postgres", "-Atc", "select 'in'")
            return run("psql", *arguments, PGPASSWORD=password)[0] == 0

        assert let_in("alice", "alice-pw"), log.read_text()
        assert not let_in("alice", "wrong") and not let_in("mallory", "mallory-pw") and not let_in("bob", "bob-pw")


def in_namespace(open_path: Path, script: str) -> str:
    path = open_path / "script.sh"
    path.write_text(f"cd {open_path}\n{script}")
    status, said = run("unshare", "-m", "--propagation", "private", "bash", str(path))
    assert status == 0, said
    return said


NSS_OF = "passwd: files {0}\ngroup: files {0}\nshadow: files {0}\n"
ASKED = """
for name in 'getent passwd alice' 'id -nG alice' 'getent passwd 10001' 'getent group labstaff' \\
    'getent passwd nobody-at-all'
do echo "$name: $($name)"; done
for login in 'alice alice-pw' 'alice wrong' 'mallory mallory-pw' 'bob bob-pw'
do echo "$login: $(echo "${login#* }" | pamtester recipe "${login% *}" authenticate acct_mgmt >/dev/null 2>&1; echo $?)"
done
"""


@needs("nslcd", "unshare", "pamtester", root=True)
@pytest.mark.skipif(not list(Path("/lib").glob("*/security/pam_ldap.so")), reason="no pam_ldap")
def test_nslcd(world: World, open_path: Path) -> None:
    (open_path / "nslcd.conf").write_text(f"{world.recipe('nslcd')}tls_cacertfile {world.ca}\n")
    (open_path / "nslcd.conf").chmod(0o640)
    (open_path / "nsswitch.conf").write_text(NSS_OF.format("ldap"))
    (open_path / "recipe").write_text("auth required pam_ldap.so\naccount required pam_ldap.so\n")
    said = in_namespace(
        open_path,
        f"""
        mkdir run pam.d && cp recipe pam.d && cp -n /etc/pam.d/* pam.d
        mount --bind nslcd.conf /etc/nslcd.conf && mount --bind nsswitch.conf /etc/nsswitch.conf
        mount --bind pam.d /etc/pam.d && mkdir -p /var/run/nslcd && mount --bind run /var/run/nslcd
        nslcd -d >log 2>&1 & nslcd=$!
        for n in $(seq 100); do [ -S /var/run/nslcd/socket ] && getent passwd alice >/dev/null && break; sleep 0.1; done
        {ASKED}
        kill $nslcd; wait $nslcd
        true
        """,
    )
    found = dict(line.split(": ", 1) if ": " in line else (line.rstrip(":"), "") for line in said.splitlines())
    assert found["getent passwd alice"].startswith("alice:") and ":10001:" in found["getent passwd alice"], said
    assert found["getent passwd 10001"] == found["getent passwd alice"]
    assert "labstaff" in found["id -nG alice"].split()
    assert "alice" in found["getent group labstaff"].rpartition(":")[2].split(",")
    assert found["getent passwd nobody-at-all"] == ""
    logins = {login: found[login] == "0" for login in ("alice alice-pw", "alice wrong", "mallory mallory-pw")}
    assert logins == {"alice alice-pw": True, "alice wrong": False, "mallory mallory-pw": False}, said


@needs("sssd", "unshare", "pamtester", root=True)
def test_sssd(world: World, open_path: Path) -> None:
    recipe = world.recipe("sssd").replace("services = nss, pam, ssh", "services = nss, pam")
    (open_path / "sssd.conf").write_text(f"{recipe}ldap_tls_cacert = {world.ca}\n")
    (open_path / "sssd.conf").chmod(0o600)
    (open_path / "nsswitch.conf").write_text(NSS_OF.format("sss"))
    (open_path / "recipe").write_text("auth required pam_sss.so\naccount required pam_sss.so\n")
    folders = "db mc pipes/private pubconf/krb5.include.d secrets keytabs gpo_cache deskprofile"
    said = in_namespace(
        open_path,
        f"""
        chmod 755 .
        mkdir -p etc/conf.d log pam.d {" ".join(f"lib/{one}" for one in folders.split())}
        chmod 700 lib/pipes/private lib/db
        cp -p sssd.conf etc && cp recipe pam.d && cp -n /etc/pam.d/* pam.d
        mount --bind nsswitch.conf /etc/nsswitch.conf && mount --bind pam.d /etc/pam.d
        mount --bind etc /etc/sssd && mount --bind lib /var/lib/sss && mount --bind log /var/log/sssd
        sssd -i --logger=files >out 2>&1 & sssd=$!
        for n in $(seq 100); do [ -S lib/pipes/nss ] && getent passwd alice >/dev/null && break; sleep 0.2; done
        {ASKED}
        kill $sssd; wait $sssd
        true
        """,
    )
    found = dict(line.split(": ", 1) if ": " in line else (line.rstrip(":"), "") for line in said.splitlines())
    assert found["getent passwd alice"].startswith("alice:") and ":10001:" in found["getent passwd alice"], said
    assert found["getent passwd 10001"] == found["getent passwd alice"]
    assert "labstaff" in found["id -nG alice"].split()
    assert "alice" in found["getent group labstaff"].rpartition(":")[2].split(",")
    assert found["getent passwd nobody-at-all"] == ""
    logins = {one: found[one] == "0" for one in ("alice alice-pw", "alice wrong", "mallory mallory-pw", "bob bob-pw")}
    assert logins == {"alice alice-pw": True, "alice wrong": False, "mallory mallory-pw": False, "bob bob-pw": False}
