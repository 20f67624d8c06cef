"""Both ends of a channel in one loop: a worker's front, and a parent that is a real gate or one made of words."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any

from outpost.credentials.gate import GateSettings
from outpost.errors import DecodeError
from outpost.identity import Accepted, Identity, LdapProvider, RadiusProvider, Secret, Source
from outpost.processes import message
from outpost.processes.channel import Channel
from outpost.processes.message import Message
from outpost.workers import words
from outpost.workers.calls import Calls
from outpost.workers.front import Front
from outpost.workers.words import TO_PARENT, TO_WORKER, Decided, Proof, ToParent, ToWorker

LDAP = LdapProvider(1, "ldap", "dc=example", "mail")
RADIUS = RadiusProvider(1, "radius", "wifi", (ip_network("127.0.0.0/8"),), Secret("testing123"))
ANN = Accepted(Identity(7, "ann", can_search=False, session="s"))
HERE = Source("ldap", "192.0.2.1")
KEY = bytes(32)


class Clock:
    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@dataclass
class Parent:
    """The parent's end, spoken by the test."""

    channel: Channel
    heard: asyncio.Queue[ToParent] = field(default_factory=asyncio.Queue)
    ended: list[str] = field(default_factory=list)

    def say(self, said: ToWorker, *descriptors: int) -> None:
        self.channel.post(TO_WORKER.encode(said), descriptors)

    async def next(self) -> Any:
        return await asyncio.wait_for(self.heard.get(), 5)


@dataclass
class Bench:
    parent: Parent
    front: Front
    calls: Calls
    clock: Clock
    lost: list[str]

    def accept(self, identifier: int, accepted: Accepted = ANN, age_s: float = 0.0, lasts_s: float = 300.0) -> None:
        proof = Proof(self.clock() - age_s, self.clock() + lasts_s - age_s)
        self.parent.say(Decided(identifier, accepted, proof))

    def known(self, password: bytes = b"pw", provider: Any = LDAP, source: Source = HERE) -> Accepted | None:
        return self.front.known(provider, "ann", password, source)

    def login(self, password: str = "pw", provider: Any = LDAP, source: Source = HERE) -> asyncio.Task[Any]:
        return asyncio.create_task(self.front.authenticate(provider, "ann", Secret(password), source))


@contextlib.asynccontextmanager
async def bench(settings: GateSettings | None = None, *, most: int = 8, timeout_s: float = 5.0) -> AsyncIterator[Bench]:
    """A front whose parent is the test."""
    here, there = message.pair()
    clock, lost = Clock(), []

    def received(found: Message) -> None:
        try:
            said: Any = TO_WORKER.decode(found.body)
            if isinstance(said, words.Decided | words.PasswordDecided | words.Found):
                calls.answer(said.id, said, found)
            elif isinstance(said, words.Revoke):
                front.publish(said.revoked)
            elif isinstance(said, words.Refused):
                front.refused(said.key)
            elif isinstance(said, words.Doubt):
                front.doubt(said.user_pk, said.mark)
            else:
                raise DecodeError("not here")
        except DecodeError:
            found.close()
            raise

    def closed(why: str) -> None:
        lost.append(why)
        calls.lose()

    ours = Channel(there, received, closed)
    calls = Calls(lambda said: ours.post(TO_PARENT.encode(said)), most, timeout_s)
    front = Front(calls, settings or GateSettings(), KEY, clock=clock, epoch=Clock(1e9))
    front.set_state(trusted_since=0.0, can_change_passwords=True)

    def heard(found: Message) -> None:
        parent.heard.put_nowait(TO_PARENT.decode(found.body))

    ended: list[str] = []
    parent = Parent(Channel(here, heard, ended.append), ended=ended)
    try:
        yield Bench(parent, front, calls, clock, lost)
    finally:
        await front.stop()
        parent.channel.close()
        ours.close()
