"""docs/settings.md, made from the dataclasses: `python -m tests.config.settings_page > docs/settings.md`."""

import ast
import inspect
import itertools
import sys
import textwrap
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from outpost.config import layers, settings
from outpost.identity import Secret

HEAD = """\
# Settings

Each layer overrides those before it: defaults, the TOML file (`--config FILE` or `OUTPOST_CONFIG`), the
environment, the command line (`--set KEY=VALUE`, `--directory`, `--log-level`). `outpost check` prints what
counts, and where it was set.

- The file begins with `version = 1`. Unknown keys are refused, with the nearest one that exists.
- `cache.max_age` is the key `max_age` in the table `[cache]`, the variable `OUTPOST_CACHE__MAX_AGE`, and `--set
  cache.max_age=1m`.
- Durations are `250ms`, `30s`, `5m`, `1h`, `1h30m` or seconds; sizes `64KiB`, `1MiB` or octets; lists `["a",
  "b"]` or `a,b`.
- A text may be `env://NAME?default` or `file:///path?default`. Tokens also come from files:
  `OUTPOST_AUTHENTIK__TOKEN_FILE`.
- Exactly one source of identity: `directory` (`OUTPOST_DIRECTORY`, an authentik blueprint), or `authentik.host`
  with a token.

`docs/settings.md` is generated from the code.
"""
PROVIDERS = """\
## [provider.*NAME*]

Extras of the provider called *NAME* that authentik has no field for, in the file only:

    [provider.wifi]
    message_authenticator = "require"
"""


def documentation(cls: type[Any]) -> Mapping[str, str]:
    """The string below each field of a dataclass."""
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0].body  # type: ignore[attr-defined]
    found = {}
    for field, after in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            found[field.target.id] = " ".join(str(after.value.value).split())  # type: ignore[union-attr]
    return found


def rows(cls: type[Any], section: str) -> Iterator[str]:
    told = documentation(cls)
    names = {key: name for name, key in layers.AUTHENTIK_NAMES.items()}
    for setting in layers.schema(cls):
        alias = names.get(f"{section}.{setting.key}")
        shown = setting.show(setting.default) if setting.default is not None else ""
        choices = layers.CHOICES.get(setting.name) or (
            typing.get_args(setting.kind) if typing.get_origin(setting.kind) is typing.Literal else ()
        )
        text = told.get(setting.name, "")
        if choices and not all(choice in text for choice in choices):
            text = f"{text} One of {', '.join(f'`{c}`' for c in choices)}.".strip()
        if alias and alias not in text:
            text = f"{text} `{alias}`.".strip()
        secret = setting.kind == Secret or Secret in typing.get_args(setting.kind)
        yield f"| `{setting.key}` | {f'`{shown}`' if shown else ''} | {text}{' Never shown.' if secret else ''} |"


def page() -> Iterator[str]:
    yield HEAD
    for name, classes in settings.SECTIONS.items():
        yield f"## [{name}]\n\n| key | default | |\n|---|---|---|"
        for cls in classes:
            yield from rows(cls, name)
        yield ""
    yield PROVIDERS
    for kind, cls in settings.OPTIONS.items():
        yield f"{'LDAP' if kind == 'ldap' else 'RADIUS'}:\n\n| key | default | |\n|---|---|---|"
        yield from rows(cls, "provider")
        yield ""


def text() -> str:
    """The whole page."""
    return "\n".join(page()).rstrip() + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
