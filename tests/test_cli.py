"""The commands: what they print, where errors go, and the exit status."""

import importlib
import io
import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from outpost import cli
from outpost.backends.embedded import phc
from outpost.identity import Secret


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    try:
        status = cli.main(argv)
    except SystemExit as stop:
        status = int(stop.code or 0)
    out, err = capsys.readouterr()
    return status, out, err


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AUTHENTIK_HOST", "AUTHENTIK_TOKEN", "OUTPOST_DIRECTORY", "OUTPOST_CONFIG"):
        monkeypatch.delenv(name, raising=False)


def test_version(capsys) -> None:
    status, out, _ = run(capsys, "version")
    assert status == 0
    assert out.startswith("outpost ")


def test_help_names_every_command_and_both_sources(capsys) -> None:
    status, out, _ = run(capsys, "--help")
    assert status == 0
    for word in (
        "run",
        "check",
        "healthcheck",
        "decode",
        "hash-password",
        "version",
        "AUTHENTIK_HOST",
        "--directory",
        "exit status",
    ):
        assert word in out


@pytest.mark.parametrize("argv", [(), ("frobnicate",), ("check", "--frobnicate"), ("check", "--set", "x")])
def test_wrong_usage_is_2_with_nothing_on_stdout(capsys, argv) -> None:
    status, out, err = run(capsys, *argv)
    assert (status, out) == (2, "")
    assert "usage: outpost" in err


def test_neither_server_nor_directory_is_2(capsys) -> None:
    status, out, err = run(capsys, "check")
    assert (status, out) == (2, "")
    assert err.startswith("outpost: neither a server nor a directory is set")
    assert err.count("\n") == 1


def test_both_server_and_directory_is_2(capsys, monkeypatch) -> None:
    monkeypatch.setenv("AUTHENTIK_HOST", "https://id.example.org")
    status, _, err = run(capsys, "check", "--directory", "d.yaml")
    assert status == 2
    assert "AUTHENTIK_HOST: both a server (here) and a directory (--directory) are set" in err


def test_a_wrong_key_names_file_line_and_key(capsys, tmp_path) -> None:
    path = tmp_path / "o.toml"
    path.write_text('version = 1\ndirectory = "x"\n[log]\nlevle = "info"\n')
    status, _, err = run(capsys, "check", "--config", str(path))
    assert status == 2
    assert err == f"outpost: {path}:4: log.levle: unknown key; did you mean log.level?\n"


def test_decode_ldap_shows_the_search_as_text(capsys) -> None:
    # A search as a client would send it, written by hand from RFC 4511 4.5.1.
    operation = bytes.fromhex("040a64633d6578616d706c650a01020a0100020100020100010100")
    operation += (
        bytes.fromhex("a0 17 8703756964 a410 0402636e 300a 800161 81012a 8202c3a9".replace(" ", "")) + b"\x30\x00"
    )
    message = b"\x02\x01\x07\x63" + bytes([len(operation)]) + operation
    message = b"\x30" + bytes([len(message)]) + message
    status, out, _ = run(capsys, "decode", "ldap", message.hex(":"))
    assert status == 0
    assert "SearchRequest messageID=7" in out
    assert "baseObject      dc=example" in out
    assert "filter          (&(uid=*)(cn=a*\\2a*é))" in out


def test_decode_reads_stdin_and_masks_the_password(capsys, monkeypatch) -> None:
    bind = b"\x30\x17\x02\x01\x01\x60\x12\x02\x01\x03\x04\x03n=a\x80\x08canary-1"
    monkeypatch.setattr("sys.stdin", io.StringIO(bind.hex()))
    status, out, _ = run(capsys, "decode", "ldap")
    assert status == 0
    assert "simple, 8 octets ***" in out
    assert "canary" not in out


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [
        ("xyz", 2, "expected hexadecimal digits"),
        ("", 1, "nothing to decode"),
        ("3005", 1, "incomplete"),
        ("3080", 1, "outpost: "),
    ],
)
def test_decode_refuses_what_is_no_message(capsys, text, status, words) -> None:
    found, out, err = run(capsys, "decode", "ldap", text)
    assert (found, out) == (status, "")
    assert words in err


def test_check_reads_the_dictionaries(capsys, tmp_path) -> None:
    words = tmp_path / "dictionary.acme"
    empty = tmp_path / "empty.yaml"
    empty.write_text("version: 1\nentries: []\n")
    words.write_text("VENDOR Acme 99999\nBEGIN-VENDOR Acme\nATTRIBUTE Acme-Rank 1 integr\n")
    asked = ("check", "--directory", str(empty), "--set", f"radius.dictionaries={words}")
    status, out, err = run(capsys, *asked)
    assert (status, out) == (2, "")
    assert err == f"outpost: {words}:3: Acme-Rank: no type: integr\n"
    words.write_text("ATTRIBUTE Acme-Rank 1 integer\n")
    status, out, _ = run(capsys, *asked)
    assert status == 0
    assert f'dictionaries = "{words}"' in out
    status, _, err = run(capsys, *asked[:-1], "radius.dictionaries=nowhere")
    assert (status, err) == (2, "outpost: nowhere: cannot be read: No such file or directory\n")


# RFC 2865 7.1: nemo telnets to 192.168.1.16 port 3, his password is arctangent.
RFC2865_7_1 = (
    "01000038 0f403f9473978057bd83d5cb98f4227a 01066e656d6f"
    "02120dbe708d93d413ce3196e43f782a0aee 0406c0a80110 050600000003"
)


def test_decode_radius_shows_rfc2865_7_1(capsys, tmp_path) -> None:
    status, out, _ = run(capsys, "decode", "radius", RFC2865_7_1)
    assert status == 0
    assert out.startswith("Access-Request identifier=0 length=56\n")
    for word in ("nemo", "192.168.1.16", "NAS-Port"):
        assert word in out
    assert "arctangent" not in out
    (tmp_path / "secret").write_text("xyzzy5461\n")
    status, out, _ = run(capsys, "decode", "radius", RFC2865_7_1, "--secret-file", str(tmp_path / "secret"))
    assert status == 0
    assert "arctangent" in out


# RFC 2865 7.1, the answer to it.
RFC2865_7_1_ACCEPT = "02000026 86fe220e7624ba2a1005f6bf9b55e0b2 060600000001 0f0600000000 0e06c0a80103"


def test_decode_radius_judges_a_reply_by_its_request(capsys) -> None:
    asked = ("decode", "radius", RFC2865_7_1_ACCEPT, "--secret")
    status, out, _ = run(capsys, *asked, "xyzzy5461")
    assert status == 0
    assert "not judged without the request" in out
    status, out, _ = run(capsys, *asked, "xyzzy5461", "--request", RFC2865_7_1)
    assert status == 0
    assert "(right)" in out
    for secret, request in (("xyzzy5462", RFC2865_7_1), ("xyzzy5461", RFC2865_7_1.replace("0f40", "0f41"))):
        status, out, _ = run(capsys, *asked, secret, "--request", request)
        assert status == 0
        assert "(WRONG" in out
        assert "(right)" not in out


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [("zz", 2, "hexadecimal"), ("0100", 1, "the request"), ("02" * 20, 1, "the request")],
)
def test_decode_radius_refuses_a_request_that_is_none(capsys, request_, status, words) -> None:
    got, out, err = run(capsys, "decode", "radius", RFC2865_7_1_ACCEPT, "--secret", "x", "--request", request_)
    assert (got, out) == (status, "")
    assert words in err


def test_decode_radius_takes_names_from_dictionaries(capsys, tmp_path) -> None:
    words = tmp_path / "dictionary.acme"
    empty = tmp_path / "empty.yaml"
    empty.write_text("version: 1\nentries: []\n")
    words.write_text("VENDOR Acme 99999\nBEGIN-VENDOR Acme\nATTRIBUTE Acme-Rank 7 integer\nVALUE Acme-Rank Captain 2\n")
    packet = "02010020" + "00" * 16 + "1a0c0001869f0706 00000002"
    status, out, _ = run(capsys, "decode", "radius", packet, "--dictionary", str(words))
    assert status == 0
    assert "Acme-Rank" in out
    assert "Captain" in out


def test_decode_radius_takes_one_secret(capsys, tmp_path) -> None:
    status, out, _ = run(capsys, "decode", "radius", RFC2865_7_1, "--secret", "x", "--secret-file", str(tmp_path))
    assert (status, out) == (2, "")


def test_decode_radius_without_the_secret_file_is_2(capsys, tmp_path) -> None:
    status, out, err = run(capsys, "decode", "radius", RFC2865_7_1, "--secret-file", str(tmp_path / "none"))
    assert (status, out) == (2, "")
    assert "No such file" in err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0100", "at least 20 octets"),
        ("01000039" + "00" * 52, "announces 57 octets"),
        ("01000015" + "00" * 16 + "01", "out of bounds"),
        ("01000016" + "00" * 16 + "0101", "out of bounds"),
    ],
)
def test_decode_radius_refuses_what_is_no_packet(capsys, text, words) -> None:
    status, out, err = run(capsys, "decode", "radius", text)
    assert (status, out) == (1, "")
    assert words in err


def serve_once(answer: bytes) -> tuple[int, threading.Thread]:
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener, listener.accept()[0] as peer:
            peer.recv(4096)
            peer.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return listener.getsockname()[1], thread


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", 0, ""),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\nldap: no directory yet\n", 1, "not ready: ldap: no directory yet"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", 1, "not ready: 404"),
        (b"SSH-2.0-x\r\n", 1, "no HTTP"),
        (b"", 1, "no HTTP"),
    ],
)
def test_healthcheck_believes_nothing_but_200(capsys, answer, status, words) -> None:
    port, thread = serve_once(answer)
    found, out, err = run(capsys, "healthcheck", "--set", f"listen.metrics=127.0.0.1:{port}")
    thread.join(5)
    assert (found, out) == (status, "")
    assert words in err


def test_healthcheck_with_nobody_there_is_1(capsys) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    status, _, err = run(capsys, "healthcheck", "--set", f"listen.metrics=127.0.0.1:{port}")
    assert status == 1
    assert f"nothing ready at 127.0.0.1 port {port}" in err


def test_healthcheck_gives_up_on_silence(capsys) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]
        begun = time.monotonic()
        status, _, _ = run(capsys, "healthcheck", "--timeout", "0.2", "--set", f"listen.metrics=127.0.0.1:{port}")
    assert status == 1
    assert time.monotonic() - begun < 5


def said_by(code: str) -> str:
    """By a new interpreter."""
    root = Path(cli.__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True, env={})
    return done.stdout


def test_healthcheck_imports_nothing_heavy() -> None:
    code = (
        "import sys; from outpost import cli;"
        "cli.main(['healthcheck', '--set', 'listen.metrics=127.0.0.1:9']);"
        "heavy = {'asyncio', 'aiohttp', 'uvloop', 'yaml', 'cryptography', 'http.client', 'tomllib'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert said_by(code) == "[]\n"


def test_a_start_loads_nothing_that_only_some_need() -> None:
    """What each costs at every start and for as long as the process lives: see docs/performance.md."""
    code = (
        "import sys, outpost.app.process, outpost.backends.authentik.backend, outpost.observe.authentik;"
        "later = {'cryptography.x509', 'prometheus_client', 'outpost.workers.team', 'yaml'};"
        "print(sorted(later & set(sys.modules)))"
    )
    assert said_by(code) == "[]\n"


@pytest.mark.parametrize("name", ["cryptography.x509", "outpost.observe.exposition"])
def test_what_is_loaded_later_is_there(name: str) -> None:
    importlib.import_module(name)


def test_the_module_runs_as_the_command() -> None:
    root = Path(cli.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-m", "outpost", "version"], cwd=root, capture_output=True, text=True, env={}
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("outpost ")


# -- directory files ------------------------------------------------------------------------------

EXAMPLE = Path(__file__).parents[1] / "examples" / "directory.yaml"
SERVED = """
version: 1
entries:
  - model: authentik_providers_radius.radiusprovider
    id: network
    identifiers: {name: network}
    attrs: {shared_secret: canary-of-the-network, client_networks: 192.0.2.0/24}
  - model: authentik_core.application
    identifiers: {slug: network}
    attrs: {name: Network, provider: !KeyOf network}
  - model: authentik_core.user
    identifiers: {username: ann}
    attrs: %s
"""


def blueprint(tmp_path: Path, user: str) -> str:
    path = tmp_path / "directory.yaml"
    path.write_text(SERVED % user)
    return str(path)


def test_check_reads_the_directory(capsys, tmp_path) -> None:
    status, out, err = run(capsys, "check", "--directory", str(EXAMPLE))
    assert (status, err) == (0, "")
    assert f'directory = "{EXAMPLE}"' in out
    status, out, err = run(capsys, "check", "--directory", str(tmp_path / "nowhere.yaml"))
    assert (status, out) == (2, "")
    assert err.startswith(f"outpost: {tmp_path}/nowhere.yaml: ") and err.count("\n") == 1
    status, out, err = run(capsys, "check", "--directory", blueprint(tmp_path, "{is_active: perhaps}"))
    assert (status, out) == (2, "")
    assert re.match(rf"outpost: {tmp_path}/directory\.yaml:\d+: .*is_active.*\n\Z", err)


def test_check_warns_and_tells_no_secret(capsys, tmp_path) -> None:
    status, out, err = run(capsys, "check", "--directory", blueprint(tmp_path, "{password: canary-of-ann}"))
    assert status == 0
    assert out.startswith("version = 1\n")
    assert err.startswith("outpost: warning: ") and "plain text" in err
    assert "canary" not in out + err


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ("{Acme-Rank: 3}", "no attribute Acme-Rank"),
        ("{Session-Timeout: soon}", "Session-Timeout"),
        ("{Framed-IP-Address: 300.1.1.1}", "Framed-IP-Address"),
    ],
)
def test_check_refuses_reply_attributes_that_cannot_be_sent(capsys, tmp_path, reply, words) -> None:
    path = blueprint(tmp_path, f"{{attributes: {{radius: {reply}}}}}")
    status, out, err = run(capsys, "check", "--directory", path)
    assert (status, out) == (2, "")
    assert "'ann'" in err and words in err
    mine = tmp_path / "dictionary.acme"
    mine.write_text("ATTRIBUTE Acme-Rank 254 integer\n")
    status, _, err = run(capsys, "check", "--directory", path, "--set", f"radius.dictionaries={mine}")
    assert status == (0 if "Acme" in reply else 2)


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ('mac_addresses = ["nonsense"]', "RADIUS provider 'network': not served: mac_addresses: 'nonsense'"),
        ('mac_attributes = ["Acme-Rank=3"]', "RADIUS provider 'network': mac_attributes: the dictionary has no"),
        ('mac_attributes = ["Filter-Id=ok"]', ""),
    ],
)
def test_check_refuses_options_of_radius_providers_that_cannot_be_served(capsys, tmp_path, toml, words) -> None:
    settings = tmp_path / "outpost.toml"
    settings.write_text(f'version = 1\ndirectory = "{blueprint(tmp_path, "{}")}"\n[provider.network]\n{toml}\n')
    status, _, err = run(capsys, "check", "--config", str(settings))
    assert status == (2 if words else 0) and words in err


def test_check_refuses_two_radius_providers_with_one_network(capsys, tmp_path) -> None:
    path = blueprint(tmp_path, "{}")
    text = Path(path).read_text()
    again = text[text.index("  - model: authentik_providers_radius") : text.index("  - model: authentik_core.user")]
    again = again.replace("network", "other").replace("Network", "Other").replace("client_others", "client_networks")
    Path(path).write_text(text + again)
    status, _, err = run(capsys, "check", "--directory", path)
    assert status == 2 and "network 192.0.2.0/24 already belongs to the provider" in err


def test_settings_for_a_provider_that_is_not_there_are_told(capsys, tmp_path) -> None:
    settings = tmp_path / "outpost.toml"
    settings.write_text(
        f'version = 1\ndirectory = "{blueprint(tmp_path, "{}")}"\n[provider.netwrok]\nchallenge = false\n'
    )
    status, _, err = run(capsys, "check", "--config", str(settings))
    assert status == 0
    assert "netwrok" in err


@pytest.mark.parametrize(("value", "number"), [("3", 3), ("auto", len(os.sched_getaffinity(0)))])
def test_check_shows_how_many_workers_there_will_be(capsys, tmp_path, value: str, number: int) -> None:
    status, out, _ = run(capsys, "check", "--directory", blueprint(tmp_path, "{}"), "--workers", value)
    assert status == 0
    assert f"workers = {number}  # --set process.workers" in out


def test_a_number_of_workers_that_is_none_is_refused(capsys, tmp_path) -> None:
    status, _, err = run(capsys, "check", "--directory", blueprint(tmp_path, "{}"), "--workers", "some")
    assert status == 2
    assert "expected a number of processes from 1 to 256, or auto" in err


def hash_password(octets: bytes) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "outpost", "hash-password"]
    return subprocess.run(command, input=octets, capture_output=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("typed", "password"),
    [
        (b"p w \n", b"p w "),
        (b"pw\r\n", b"pw"),
        (b"pw", b"pw"),
        (b"p\xff\0w\nmore\n", b"p\xff\0w"),
        ("pä\n".encode(), b"p\xc3\xa4"),
    ],
)
def test_hash_password_takes_one_line(typed, password) -> None:
    done = hash_password(typed)
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode().removesuffix("\n")
    assert phc.verify(text, Secret(password))
    assert not phc.verify(text, Secret(password + b"\n"))
    assert done.stdout != hash_password(typed).stdout


@pytest.mark.parametrize("typed", [b"", b"\n", b"\r\n", b"\npw\n"])
def test_hash_password_refuses_an_empty_one(typed) -> None:
    done = hash_password(typed)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"outpost: an empty password is no password\n"


@pytest.mark.parametrize(
    ("answers", "status", "words"),
    [
        (["pä", "pä"], 0, ""),
        (["canary-1", "canary-2"], 2, "not the same"),
        ([""], 2, "empty password"),
    ],
)
def test_hash_password_asks_twice_on_a_terminal(capsys, monkeypatch, answers, status, words) -> None:
    asked = iter(answers)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("getpass.getpass", lambda _prompt: next(asked))
    found, out, err = run(capsys, "hash-password")
    assert found == status
    assert words in err and "canary" not in out + err
    assert next(asked, None) is None
    if status == 0:
        assert phc.verify(out.strip(), Secret("pä"))
    else:
        assert out == ""
