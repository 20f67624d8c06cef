"""The `outpost` command.

Exit status: 0 fine, 1 failed while running, 2 wrong settings or usage. Importing this module is cheap
and every command imports only what it needs, because `healthcheck` runs every few seconds.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from outpost import __version__
from outpost.errors import ConfigError, OutpostError

OK, FAILED, WRONG = 0, 1, 2

EPILOG = """\
settings, each overriding those before: defaults, the TOML file, the environment
(authentik's AUTHENTIK_ names, ours OUTPOST_<SECTION>__<KEY>), the command line.
Exactly one source of identity must be set:
  a server     AUTHENTIK_HOST and AUTHENTIK_TOKEN
  a directory  --directory FILE or OUTPOST_DIRECTORY (an authentik blueprint)

exit status: 0 fine, 1 failed while running, 2 wrong settings or usage
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status of the command in `argv` (default: the arguments of the process)."""
    arguments = parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        return command(arguments)
    except ConfigError as error:
        return complain(error, WRONG)
    except OutpostError as error:
        return complain(error, FAILED)
    except KeyboardInterrupt:
        return FAILED
    except BrokenPipeError:
        # Whoever read our output has gone; keep the interpreter from flushing into the void at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def complain(problem: object, status: int) -> int:
    """Print one line on stderr and return `status`."""
    print(f"outpost: {problem}", file=sys.stderr)
    return status


def parser() -> argparse.ArgumentParser:
    """The grammar of the command line."""
    top = argparse.ArgumentParser(
        prog="outpost",
        description="LDAP and RADIUS for the identity provider authentik, or for a directory file.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"outpost {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, function: Callable[[argparse.Namespace], int], help: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.", allow_abbrev=False)
        sub.set_defaults(command=function)
        return sub

    for name, function, text in (
        ("run", run, "serve LDAP and RADIUS in the foreground until SIGTERM or SIGINT"),
        ("check", check, "check settings and directory, print the effective settings with secrets masked"),
    ):
        sub = command(name, function, text)
        _add_settings(sub)
        sub.add_argument("--directory", metavar="FILE", help="serve this authentik blueprint instead of a server")
        sub.add_argument("--log-level", metavar="LEVEL", help="trace, debug, info, warning or error")
        sub.add_argument("--workers", metavar="N", help="serving processes, or auto for one per processor (1)")

    sub = command("healthcheck", healthcheck, "exit 0 if the appliance on this machine is ready to serve")
    _add_settings(sub)
    sub.add_argument("--timeout", type=float, default=3.0, metavar="SECONDS", help="give up after this (3)")

    sub = command("decode", decode, "show what is in an LDAP message or a RADIUS packet")
    sub.add_argument("protocol", choices=("ldap", "radius"))
    sub.add_argument("hex", nargs="?", default="-", metavar="HEX", help="hexadecimal digits, or - for standard input")
    radius = sub.add_argument_group("for RADIUS")
    secret = radius.add_mutually_exclusive_group()
    secret.add_argument(
        "--secret-file",
        type=Path,
        metavar="FILE",
        help="file with the shared secret, to show hidden values and judge authenticators",
    )
    secret.add_argument("--secret", metavar="SECRET", help="the shared secret itself; the list of processes shows it")
    radius.add_argument("--request", metavar="HEX", help="the request that the packet answers, to judge and open it")
    radius.add_argument(
        "--dictionary", type=Path, action="append", default=[], metavar="FILE", help="further names of attributes"
    )

    command("hash-password", hash_password, "hash a password for a directory file, from the terminal or standard input")
    command("version", version, "print the version")
    return top


def _add_settings(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--config", type=Path, metavar="FILE", help="TOML file with settings (OUTPOST_CONFIG)")
    sub.add_argument(
        "--set",
        action="append",
        default=[],
        type=_assignment,
        dest="assignments",
        metavar="KEY=VALUE",
        help="set one key, for instance cache.max_age=1m; may be repeated",
    )


def _assignment(text: str) -> tuple[str, str]:
    key, found, value = text.partition("=")
    if not found or not key.strip():
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, not {text!r}")
    return key.strip(), value


def _options(arguments: argparse.Namespace) -> list[tuple[str, str]]:
    options = list(arguments.assignments)
    if arguments.directory is not None:
        options.append(("directory", arguments.directory))
    if arguments.log_level is not None:
        options.append(("log.level", arguments.log_level))
    if arguments.workers is not None:
        options.append(("process.workers", arguments.workers))
    return options


def run(arguments: argparse.Namespace) -> int:
    """`outpost run`."""
    from outpost.app import process  # noqa: PLC0415
    from outpost.config import settings  # noqa: PLC0415

    return process.run(settings.load(arguments.config, os.environ, _options(arguments)))


def check(arguments: argparse.Namespace) -> int:
    """`outpost check`."""
    from outpost.app.check import findings  # noqa: PLC0415
    from outpost.config import settings  # noqa: PLC0415

    loaded = settings.load(arguments.config, os.environ, _options(arguments))
    warnings, faults = findings(loaded)
    for warning in warnings:
        complain(f"warning: {warning}", OK)
    for fault in faults:
        complain(fault, WRONG)
    if faults:
        return WRONG
    print("\n".join(loaded.lines()))
    return OK


def healthcheck(arguments: argparse.Namespace) -> int:
    """`outpost healthcheck`: asks the metrics port of this machine for /-/ready."""
    from outpost.config import layers, sections  # noqa: PLC0415

    config = arguments.config
    if config is None and os.environ.get("OUTPOST_CONFIG"):
        config = Path(os.environ["OUTPOST_CONFIG"])
    given = layers.read(config, os.environ, arguments.assignments)
    listen = given.section("listen", sections.ListenSettings)
    if not listen.metrics:
        return complain("no metrics listener is set, so nobody can be asked", FAILED)
    there = listen.metrics[0]
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(there.host, there.host)  # noqa: S104
    try:
        status, body = _get(host, there.port, "/-/ready", arguments.timeout)
    except (OSError, ValueError) as error:
        return complain(f"nothing ready at {host} port {there.port}: {error}", FAILED)
    if status != 200:
        return complain(f"not ready: {' '.join(body.split()) or status}", FAILED)
    return OK


def _get(host: str, port: int, path: str, timeout_s: float) -> tuple[int, str]:
    """Status and body of one HTTP/1.0 GET. Raises OSError, or ValueError for what is no HTTP answer.

    By hand, since importing http.client alone costs a fifth of what a health check may take.
    """
    import socket  # noqa: PLC0415
    import time  # noqa: PLC0415

    deadline = time.monotonic() + timeout_s
    answer = b""
    with socket.create_connection((host, port), timeout=timeout_s) as there:
        name = f"[{host}]" if ":" in host else host
        request = f"GET {path} HTTP/1.0\r\nHost: {name}:{port}\r\nUser-Agent: outpost/{__version__}\r\n\r\n"
        there.sendall(request.encode())
        while len(answer) < 65536:
            there.settimeout(max(0.001, deadline - time.monotonic()))
            octets = there.recv(8192)
            if not octets:
                break
            answer += octets
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(b"\r\n", 1)[0].split()
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        raise ValueError("the answer is no HTTP")
    return int(words[1]), body.decode(errors="replace")


def hash_password(_arguments: argparse.Namespace) -> int:
    """`outpost hash-password`: asks twice on a terminal, takes one line of standard input otherwise."""
    from outpost.backends.embedded import phc  # noqa: PLC0415
    from outpost.identity import Secret  # noqa: PLC0415

    if sys.stdin.isatty():
        from getpass import getpass  # noqa: PLC0415

        password = Secret(getpass("Password: ").encode("utf-8", "surrogateescape"))
        if password and Secret(getpass("Again: ").encode("utf-8", "surrogateescape")) != password:
            return complain("the two are not the same", WRONG)
    else:
        password = Secret(sys.stdin.buffer.readline().removesuffix(b"\n").removesuffix(b"\r"))
    if not password:
        return complain("an empty password is no password", WRONG)
    print(phc.hash_password(password))
    return OK


def decode(arguments: argparse.Namespace) -> int:
    """`outpost decode`."""
    try:
        octets = _octets(sys.stdin.read() if arguments.hex == "-" else arguments.hex)
        request = None if arguments.request is None else _octets(arguments.request)
    except ValueError:
        return complain("expected hexadecimal digits", WRONG)
    if arguments.protocol == "ldap":
        from outpost.app import decode_ldap  # noqa: PLC0415

        print(decode_ldap.describe(octets))
    else:
        from outpost.identity import Secret  # noqa: PLC0415
        from outpost.radius.describe import describe_packet  # noqa: PLC0415
        from outpost.radius.dictionary import load  # noqa: PLC0415

        secret = Secret(arguments.secret) if arguments.secret else None
        if arguments.secret_file is not None:
            try:
                secret = Secret(arguments.secret_file.read_bytes().rstrip(b"\r\n"))
            except OSError as error:
                return complain(f"{arguments.secret_file}: {error.strerror}", WRONG)
        print(describe_packet(octets, secret, request, load(arguments.dictionary)))
    return OK


def _octets(digits: str) -> bytes:
    """The octets of hexadecimal digits, white space and colons between them. Raises ValueError."""
    return bytes.fromhex("".join(digits.replace(":", " ").split()))


def version(_arguments: argparse.Namespace) -> int:
    """`outpost version`."""
    print(f"outpost {__version__}")
    return OK
