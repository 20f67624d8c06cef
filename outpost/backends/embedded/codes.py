"""One-time codes: which are right now, and which were used already.

What was used is remembered in memory by keyed digest, across reloads of the directory file.  The file itself is never
rewritten: a static code has to be taken out of it by the operator, or it works once more after the next start.
"""

from __future__ import annotations

import hmac
import secrets
from hashlib import blake2b
from typing import Final, final

from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.hotp import HOTP

from outpost.backends.embedded.model import Account, TotpDevice

WINDOW: Final = 1
"""Time steps before and after the present one whose codes are accepted (RFC 6238 5.2)."""
MOST: Final = 65536
"""Generators, and static codes, remembered as used. Beyond that none is accepted rather than one twice."""


@final
class Codes:
    """Checks codes, each accepted once. Not for more than one thread."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._steps: dict[bytes, tuple[int, float]] = {}
        """By generator: the last step accepted, and when no code of it can be right any more."""
        self._static: set[bytes] = set()

    def spend(self, account: Account, code: bytes, now: float) -> bool:
        """Whether `code` is right for `account` and was not used before; then it is used now.

        now: seconds since the epoch.  Like authentik, a generator accepts no step at or before its last one.
        """
        fresh: tuple[bytes, int, TotpDevice] | None = None
        for device in account.totp:
            name = self._digest(b"totp", b"%d:%d:" % (device.digits, device.step_s), device.key.reveal())
            last, _ = self._steps.get(name, (-1, 0.0))
            steps = _matching(device, code, now)
            # A code that is right for two steps at once counts as used when either is.
            if steps and min(steps) > last and fresh is None:
                fresh = name, max(steps), device
        if fresh is not None:
            name, step, device = fresh
            return self._spend_step(name, step, (step + WINDOW + 1) * device.step_s, now)
        found = [static.reveal() for static in account.static_codes if hmac.compare_digest(static.reveal(), code)]
        return bool(found) and self._spend_static(account, code)

    def _spend_step(self, name: bytes, step: int, until: float, now: float) -> bool:
        if name not in self._steps and len(self._steps) >= MOST:
            self._steps = {one: known for one, known in self._steps.items() if known[1] > now}
            if len(self._steps) >= MOST:
                return False
        self._steps[name] = step, until
        return True

    def _spend_static(self, account: Account, code: bytes) -> bool:
        # By user name and not by pk, which another version of the file may number anew.
        user = account.username.casefold().encode("utf-8", "surrogatepass")
        name = self._digest(b"static", user, code)
        if name in self._static or len(self._static) >= MOST:
            return False
        self._static.add(name)
        return True

    def _digest(self, *parts: bytes) -> bytes:
        framed = b"".join(len(part).to_bytes(4) + part for part in parts)
        return blake2b(framed, key=self._key, digest_size=16).digest()


def _matching(device: TotpDevice, code: bytes, now: float) -> list[int]:
    """The steps around `now` whose code is `code`."""
    # No minimum key length: refusing the short keys that some generators hold would not make them longer.
    hotp = HOTP(device.key.reveal(), device.digits, SHA1(), enforce_key_length=False)  # noqa: S303
    present = int(now // device.step_s)
    steps = range(max(0, present - WINDOW), present + WINDOW + 1)
    return [step for step in steps if hmac.compare_digest(hotp.generate(step), code)]
