"""Defaults, file, environment, command line: who wins, and what is refused with which words."""

import re
from pathlib import Path

import pytest

from outpost.backends.authentik.settings import AuthentikSettings
from outpost.config import settings
from outpost.config.sections import ListenSettings, LogSettings, ProcessSettings, ServerSettings
from outpost.config.settings import Settings
from outpost.config.values import Endpoint
from outpost.errors import ConfigError
from outpost.identity import LdapOptions, RadiusOptions, Secret
from outpost.radius.dictionary import DictionarySettings

CANARY = "canary-5f1d"
DIRECTORY = {"OUTPOST_DIRECTORY": "people.yaml"}
SERVER = {"AUTHENTIK_HOST": "https://id.example.org", "AUTHENTIK_TOKEN": CANARY}


def load(
    tmp_path: Path, toml: str | None = None, environ: dict[str, str] | None = None, *options: tuple[str, str]
) -> Settings:
    path = None
    if toml is not None:
        path = tmp_path / "outpost.toml"
        path.write_text(toml)
    return settings.load(path, DIRECTORY if environ is None else environ, options)


def refusal(tmp_path: Path, *args: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, *args)  # type: ignore[arg-type]
    return str(caught.value).replace(str(tmp_path) + "/", "")


def test_each_layer_overrides_the_ones_before(tmp_path) -> None:
    toml = 'version = 1\n[log]\nlevel = "error"\n'
    assert load(tmp_path).part(LogSettings).level == "info"
    assert load(tmp_path, toml).part(LogSettings).level == "error"
    environ = DIRECTORY | {"AUTHENTIK_LOG_LEVEL": "warning"}
    assert load(tmp_path, toml, environ).part(LogSettings).level == "warning"
    environ["OUTPOST_LOG__LEVEL"] = "debug"
    assert load(tmp_path, toml, environ).part(LogSettings).level == "debug"
    assert load(tmp_path, toml, environ, ("log.level", "trace")).part(LogSettings).level == "trace"


def test_the_file_may_be_named_by_the_environment(tmp_path) -> None:
    path = tmp_path / "x.toml"
    path.write_text("version = 1\n[process]\ndrain = 3\n")
    assert settings.load(None, DIRECTORY | {"OUTPOST_CONFIG": str(path)}).part(ProcessSettings).drain_s == 3.0


def test_names_of_authentik_are_taken_as_they_are(tmp_path) -> None:
    environ = SERVER | {
        "AUTHENTIK_INSECURE": "true",
        "AUTHENTIK_LOG_LEVEL": "debug",
        "AUTHENTIK_DEBUG": "true",
        "AUTHENTIK_LISTEN__LDAP": "127.0.0.1:1,[::1]:2",
        "AUTHENTIK_LISTEN__LDAPS": "",
        "AUTHENTIK_LISTEN__RADIUS": ":1812",
        "AUTHENTIK_LISTEN__METRICS": "[::]:9300",
        "AUTHENTIK_LISTEN__TRUSTED_PROXY_CIDRS": "10.0.0.0/8,fd00::/8",
        "AUTHENTIK_LDAP__PAGE_SIZE": "250",
        "GIT_BUILD_HASH": "abc123",
    }
    found = load(tmp_path, None, environ)
    assert found.part(ServerSettings).host == "https://id.example.org"
    assert found.part(ServerSettings).token == Secret(CANARY)
    assert found.part(AuthentikSettings).insecure is True
    assert found.part(AuthentikSettings).page_size == 250
    assert found.part(ServerSettings).build_hash == "abc123"
    assert found.part(LogSettings).debug is True
    assert found.part(ListenSettings).ldap == (Endpoint("127.0.0.1", 1), Endpoint("::1", 2))
    assert found.part(ListenSettings).ldaps == ()
    assert found.part(ListenSettings).radius == (Endpoint("", 1812),)
    assert found.part(ListenSettings).metrics == (Endpoint("::", 9300),)
    assert [str(n) for n in found.part(ListenSettings).trusted_proxy_cidrs] == ["10.0.0.0/8", "fd00::/8"]
    assert found.directory is None


def test_other_names_of_authentik_are_ignored_with_a_note(tmp_path) -> None:
    found = load(tmp_path, None, DIRECTORY | {"AUTHENTIK_SECRET_KEY": CANARY})
    assert found.notes == ("AUTHENTIK_SECRET_KEY is not a setting of this program; ignored",)


def test_what_kubernetes_injects_for_a_service_called_outpost_is_not_ours(tmp_path) -> None:
    load(
        tmp_path,
        None,
        DIRECTORY
        | {
            "OUTPOST_SERVICE_HOST": "10.0.0.1",
            "OUTPOST_SERVICE_PORT_LDAP": "389",
            "OUTPOST_PORT": "tcp://10.0.0.1:389",
            "OUTPOST_PORT_389_TCP_ADDR": "10.0.0.1",
            "OUTPOST_LDAP_PORT_1812_UDP": "udp://10.0.0.1:1812",
        },
    )


def test_secrets_may_come_from_files_and_variables(tmp_path) -> None:
    (tmp_path / "token").write_text(f"{CANARY}\n")
    by_name = {"AUTHENTIK_HOST": "https://x", "OUTPOST_AUTHENTIK__TOKEN_FILE": str(tmp_path / "token")}
    assert load(tmp_path, None, by_name).part(ServerSettings).token == Secret(CANARY)
    by_scheme = {"AUTHENTIK_HOST": "env://H", "H": "https://x", "AUTHENTIK_TOKEN": f"file://{tmp_path}/token"}
    assert load(tmp_path, None, by_scheme).part(ServerSettings).token == Secret(CANARY)
    toml = 'version = 1\n[authentik]\nhost = "https://x"\ntoken = "env://T?none"\n'
    assert load(tmp_path, toml, {"T": CANARY}).part(ServerSettings).token == Secret(CANARY)
    assert load(tmp_path, toml, {}).part(ServerSettings).token == Secret("none")


def test_the_directory_in_a_file_is_relative_to_the_file(tmp_path) -> None:
    assert load(tmp_path, 'version = 1\ndirectory = "d.yaml"\n', {}).directory == tmp_path / "d.yaml"
    assert load(tmp_path, None, {"OUTPOST_DIRECTORY": "d.yaml"}).directory == Path("d.yaml")


def test_dictionaries_are_paths_relative_to_the_file(tmp_path) -> None:
    wanted = (tmp_path / "acme", Path("/usr/share/dictionary"))
    for value in ('["acme", "/usr/share/dictionary"]', '"acme, /usr/share/dictionary"'):
        toml = f"version = 1\n[radius]\ndictionaries = {value}\n"
        assert load(tmp_path, toml).part(DictionarySettings).dictionaries == wanted
    found = load(tmp_path, None, DIRECTORY | {"OUTPOST_RADIUS__DICTIONARIES": "acme,file://x"})
    assert found.part(DictionarySettings).dictionaries == (Path("acme"), Path("file://x"))
    assert load(tmp_path, 'version = 1\n[radius]\ndictionaries = ""\n').part(DictionarySettings).dictionaries == ()
    for value in ("[1]", "7"):
        words = "outpost.toml:3: radius.dictionaries: expected a list of texts"
        assert words in refusal(tmp_path, f"version = 1\n[radius]\ndictionaries = {value}\n")


def test_extras_of_providers(tmp_path) -> None:
    toml = """version = 1
[provider."LDAP for all"]
nested_groups = "effective"
require_tls = true
bind_names = ["username", "mail"]
[provider.wifi]
message_authenticator = "require"
reject_delay = "250ms"
"""
    found = load(tmp_path, toml)
    options = found.extras("LDAP for all").ldap_options(LdapOptions(uid="username"))
    assert options == LdapOptions(
        nested_groups="effective", require_tls=True, bind_names=("username", "mail"), uid="username"
    )
    assert found.extras("wifi").radius_options(RadiusOptions()) == RadiusOptions(
        message_authenticator="require", reject_delay_s=0.25
    )
    assert found.extras("none").ldap_options(LdapOptions()) == LdapOptions()


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("", "outpost.toml: version: expected version = 1"),
        ("version = 2\n", "outpost.toml:1: version: expected version = 1, found 2"),
        ("version = true\n", "outpost.toml:1: version: expected version = 1, found True"),
        ("version = 1\n\n[log\n", "outpost.toml:3: not valid TOML: Expected ']' at the end of a table declaration"),
        ("version = 1\n[log]\n# x\nlevle = 1\n", "outpost.toml:4: log.levle: unknown key; did you mean log.level?"),
        ("version = 1\n[lgo]\nlevel = 1\n", "outpost.toml:3: lgo.level: unknown key; did you mean log.level?"),
        ("version = 1\nfrobnicate = 1\n", "outpost.toml:2: frobnicate: unknown key"),
        ("version = 1\nlog = 1\n", "outpost.toml:2: log: unknown key"),
        (
            'version = 1\n[log]\nlevel = "loud"\n',
            "outpost.toml:3: log.level: expected one of trace, debug, info, warning, error",
        ),
        ("version = 1\n[log]\nlevel = 1\n", "outpost.toml:3: log.level: expected a text in quotes"),
        ('version = 1\n[process]\ndrain = "5x"\n', "outpost.toml:3: process.drain: expected a duration like 30s"),
        (
            'version = 1\nlisten.ldap = "3389"\n',
            "outpost.toml:2: listen.ldap: '3389' is no address; expected HOST:PORT or [IPv6]:PORT",
        ),
        ("version = 1\n[authentik]\npage_size = -1\n", "outpost.toml:3: authentik.page_size: expected a whole number"),
        ("version = 1\ndirectory = 5\n", "outpost.toml:2: directory: expected the path of a blueprint file"),
        (
            'version = 1\n[provider.x]\nreject_delay = "6s"\n',
            "[provider.x]: reject_delay: expected 0 to 5 seconds",
        ),
        (
            "version = 1\n[provider.x]\nnested = 1\n",
            "outpost.toml:3: provider.x.nested: unknown key; did you mean nested_groups?",
        ),
        (
            'version = 1\n[provider."a b"]\nrequire_tsl = true\n',
            "outpost.toml:3: provider.a b.require_tsl: unknown key; did you mean require_tls?",
        ),
        (
            'version = 1\n[provider.x]\nuid = "pk"\n',
            "outpost.toml:3: provider.x.uid: expected one of server, username",
        ),
        ("version = 1\nprovider = 1\n", "outpost.toml:2: provider: expected tables [provider.<name>]"),
        ("version = 1\n[provider]\nx = 1\n", "outpost.toml:2: provider: expected a table [provider.x]"),
    ],
)
def test_a_wrong_file_is_refused_with_its_place(tmp_path, toml: str, words: str) -> None:
    environ = {} if "directory =" in toml else DIRECTORY
    assert refusal(tmp_path, toml, environ).startswith(words)


def test_a_missing_or_binary_file_is_refused(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"gone.toml: cannot read the settings: No such file or directory"):
        settings.load(tmp_path / "gone.toml", DIRECTORY)
    (tmp_path / "b.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"b.toml: the settings are not UTF-8 text"):
        settings.load(tmp_path / "b.toml", DIRECTORY)


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({}, "neither a server nor a directory is set; set AUTHENTIK_HOST and AUTHENTIK_TOKEN"),
        (SERVER | DIRECTORY, "AUTHENTIK_HOST: both a server (here) and a directory (OUTPOST_DIRECTORY) are set"),
        ({"AUTHENTIK_HOST": "https://x"}, "AUTHENTIK_HOST: a server needs a token; set AUTHENTIK_TOKEN"),
        ({"AUTHENTIK_TOKEN": "x"}, "neither a server nor a directory is set"),
        (SERVER | {"AUTHENTIK_HOST": "id.example.org"}, "AUTHENTIK_HOST: expected a URL like https://"),
        (SERVER | {"AUTHENTIK_HOST": "https://"}, "AUTHENTIK_HOST: expected a URL like https://"),
        (SERVER | {"AUTHENTIK_HOST": "https://[::1"}, "AUTHENTIK_HOST: expected a URL like https://"),
        (
            SERVER | {"AUTHENTIK_HOST": "https://x:99999"},
            "AUTHENTIK_HOST: 'https://x:99999' is no URL: Port out of range",
        ),
        (SERVER | {"AUTHENTIK_TOKEN": f'"{CANARY}"'}, "AUTHENTIK_TOKEN: is in quotation marks; give it without"),
        (SERVER | {"AUTHENTIK_HOST": "https://u:p@x"}, "AUTHENTIK_HOST: expected a URL without user"),
        (SERVER | {"AUTHENTIK_HOST": "unix://"}, "AUTHENTIK_HOST: expected a URL like https://"),
        (SERVER | {"AUTHENTIK_TOKEN_LDAP": "x"}, "AUTHENTIK_TOKEN: set either this or AUTHENTIK_TOKEN_LDAP"),
        (SERVER | {"AUTHENTIK_TOKEN": "env://GONE"}, "AUTHENTIK_TOKEN: environment variable GONE is not set"),
        (
            DIRECTORY | {"OUTPOST_LISTEN__LDPA": ""},
            "OUTPOST_LISTEN__LDPA: unknown key; did you mean OUTPOST_LISTEN__LDAP",
        ),
        (DIRECTORY | {"OUTPOST_DIRECTROY": ""}, "OUTPOST_DIRECTROY: unknown key; did you mean OUTPOST_DIRECTORY?"),
        (DIRECTORY | {"OUTPOST_PROCESS__DRAIN": "x"}, "OUTPOST_PROCESS__DRAIN: expected a duration"),
        (DIRECTORY | {"AUTHENTIK_INSECURE": "ture"}, "AUTHENTIK_INSECURE: expected true or false"),
    ],
)
def test_a_wrong_environment_is_refused_with_the_variable(tmp_path, environ: dict[str, str], words: str) -> None:
    assert refusal(tmp_path, None, environ).startswith(words)


def test_a_wrong_option_is_refused_with_the_option(tmp_path) -> None:
    assert refusal(tmp_path, None, DIRECTORY, ("log.levle", "x")) == (
        "--set log.levle: unknown key; did you mean log.level?"
    )
    assert refusal(tmp_path, None, SERVER, ("directory", "x")).startswith(
        "AUTHENTIK_HOST: both a server (here) and a directory (--directory) are set"
    )


def test_sub_paths_and_sockets_are_hosts_too(tmp_path) -> None:
    for host in ("https://x/auth/", "http://10.0.0.1:9000", "unix:///run/authentik.sock"):
        assert load(tmp_path, None, SERVER | {"AUTHENTIK_HOST": host}).part(ServerSettings).host == host


def test_the_effective_settings_read_back_and_hide_secrets(tmp_path) -> None:
    toml = f"""version = 1
[authentik]
host = "https://x"
token = "{CANARY}"
[log]
level = "debug"
[provider."a b"]
reject_delay = "2s"
"""
    found = load(tmp_path, toml, {"OUTPOST_LISTEN__LDAPS": ""})
    lines = list(found.lines())
    assert CANARY not in repr(found)
    assert CANARY not in "\n".join(lines)
    assert 'token = "***"  # ' + f"{tmp_path}/outpost.toml:4" in lines
    assert 'level = "debug"  # ' + f"{tmp_path}/outpost.toml:6" in lines
    assert 'ldaps = ""  # OUTPOST_LISTEN__LDAPS' in lines
    assert 'ldap = "0.0.0.0:3389"' in lines
    again = load(tmp_path, "\n".join(lines), {})
    assert again.part(ListenSettings) == found.part(ListenSettings)
    assert again.part(LogSettings) == found.part(LogSettings)
    assert again.providers == found.providers


def test_no_error_quotes_a_secret(tmp_path) -> None:
    for environ in (SERVER | DIRECTORY, SERVER | {"AUTHENTIK_TOKEN_RADIUS": CANARY}, SERVER | {"OUTPOST_X": CANARY}):
        assert CANARY not in refusal(tmp_path, None, environ)
    assert CANARY not in refusal(tmp_path, f"version = 1\n[authentik]\ntokn = '{CANARY}'\n", {})
    assert CANARY not in refusal(tmp_path, f"version = 1\n[authentik]\ntoken = ['{CANARY}']\n", {})


def test_every_section_can_be_read_shown_and_read_again() -> None:
    for cls in (*(c for classes in settings.SECTIONS.values() for c in classes), *settings.OPTIONS.values()):
        for setting in settings.schema(cls):
            shown = setting.show(setting.default)
            if shown != "***":
                assert setting.read(shown) == setting.default, (cls, setting.name)
            assert re.fullmatch(r"[a-z][a-z0-9_]*", setting.key)
