"""The cache against a model that is too simple to be wrong: a list of what happened, searched from the end."""

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from outpost.credentials.cache import CacheSettings, CredentialsCache
from outpost.identity import Accepted, Identity, Revoked

USERS, SECRETS, PROVIDERS = st.integers(0, 2), st.sampled_from([b"x", b"y"]), st.integers(1, 2)
SERVICES, PLACES = st.sampled_from(["ldap", "radius"]), st.sampled_from(["here", "there"])
MAX_AGE, DEAF_AGE, BURST = 100.0, 30.0, 10.0


@dataclass(frozen=True)
class Login:
    service: str
    provider: int
    user: int
    secret: bytes


@dataclass(frozen=True)
class Success:
    login: Login
    asked_at: float
    answered_at: float
    ends_at: float
    session: str
    place: str | None


@dataclass
class Flight:
    login: Login
    asked_at: float
    revision: int


class CacheAgainstModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.cache = CredentialsCache(
            CacheSettings(max_age_s=MAX_AGE, max_age_disconnected_s=DEAF_AGE, code_burst_s=BURST), bytes(32)
        )
        self.now = 50.0
        self.flights: list[Flight] = []
        self.successes: list[Success] = []
        self.revocations: list[tuple[float, Revoked]] = []
        self.deaf_until: float | None = None
        """None: deaf now."""

    def key(self, login: Login) -> bytes:
        return self.cache.key(login.service, login.provider, f"user{login.user}", login.secret)

    @rule(service=SERVICES, provider=PROVIDERS, user=USERS, secret=SECRETS)
    def ask(self, service: str, provider: int, user: int, secret: bytes) -> None:
        self.flights.append(Flight(Login(service, provider, user, secret), self.now, self.cache.revision))

    @rule(
        which=st.integers(0, 5),
        place=PLACES,
        session=st.sampled_from(["s1", "s2"]),
        lasts=st.none() | st.floats(-5, 200),
        used_code=st.booleans(),
    )
    def accept(self, which: int, place: str, session: str, lasts: float | None, used_code: bool) -> None:
        if not self.flights:
            return
        flight = self.flights.pop(which % len(self.flights))
        login = flight.login
        accepted = Accepted(
            Identity(login.user, f"user{login.user}", False, session),
            expires_at=None if lasts is None else 1e9 + lasts,
            used_code=used_code,
        )
        self.cache.put(
            self.key(login),
            accepted,
            service=login.service,
            provider_pk=login.provider,
            address=place,
            mark=self.cache.mark(login.user, login.secret),
            asked_at=flight.asked_at,
            revision=flight.revision,
            now=self.now,
            epoch=1e9,
        )
        ends_at = flight.asked_at + MAX_AGE
        if lasts is not None:
            ends_at = min(ends_at, self.now + lasts)
        if used_code:
            ends_at = min(ends_at, self.now + BURST)
        known = place if used_code else None
        self.successes.append(Success(login, flight.asked_at, self.now, ends_at, session, known))

    @rule(service=SERVICES, provider=PROVIDERS, user=USERS, secret=SECRETS)
    def refuse(self, service: str, provider: int, user: int, secret: bytes) -> None:
        login = Login(service, provider, user, secret)
        self.cache.discard(self.key(login))
        self.successes = [s for s in self.successes if s.login != login]

    @rule(
        user=st.none() | USERS,
        session=st.none() | st.sampled_from(["s1", "s2"]),
        provider=st.none() | PROVIDERS,
        service=st.none() | SERVICES,
    )
    def revoke(self, user: int | None, session: str | None, provider: int | None, service: str | None) -> None:
        self.cache.revoke(Revoked(user, session, provider, service))
        self.tick(0.001)
        named = {user, session, provider} != {None}

        def dies(s: Success) -> bool:
            if not named:
                return service in {None, s.login.service}
            return (
                s.login.user == user
                or s.session == session
                or (s.login.provider == provider and service in {None, s.login.service})
            )

        self.successes = [s for s in self.successes if not dies(s)]
        self.revocations.append((self.now, Revoked(user, session, provider, service)))

    @rule(step=st.floats(0.001, 60))
    def tick(self, step: float) -> None:
        self.now += step

    @rule(connected=st.booleans())
    def connect(self, connected: bool) -> None:
        self.cache.set_connected(connected, self.now)
        if not connected:
            self.deaf_until = None
        elif self.deaf_until is None:
            self.deaf_until = self.now

    def may_be_believed(self, login: Login, place: str) -> bool:
        """There was a success that nothing since speaks against."""
        for s in self.successes:
            if s.login != login or self.now >= s.ends_at or s.place not in {None, place}:
                continue
            was_deaf = self.deaf_until is None or s.asked_at < self.deaf_until
            if was_deaf and self.now - s.asked_at >= DEAF_AGE:
                continue
            if any(at > s.asked_at and self.concerned(r, s) for at, r in self.revocations):
                continue
            return True
        return False

    @staticmethod
    def concerned(r: Revoked, s: Success) -> bool:
        if r.user_pk is None and r.session is None and r.provider_pk is None:
            return r.service in {None, s.login.service}
        return (
            r.user_pk == s.login.user
            or r.session == s.session
            or (r.provider_pk == s.login.provider and r.service in {None, s.login.service})
        )

    @invariant()
    def every_hit_is_one_that_the_model_believes(self) -> None:
        for service in ("ldap", "radius"):
            for provider in (1, 2):
                for user in (0, 1, 2):
                    for secret in (b"x", b"y"):
                        for place in ("here", "there"):
                            login = Login(service, provider, user, secret)
                            if self.cache.get(self.key(login), self.now, place) is not None:
                                assert self.may_be_believed(login, place), (login, place)

    @invariant()
    def books_are_balanced(self) -> None:
        cache = self.cache
        entries = list(cache.believed)
        assert cache.bytes_used == sum(entry.cost for entry in entries)
        assert all(cache.believed.get(entry.key) is entry for entry in entries)
        assert len(cache.believed) == len(entries)
        assert sum(len(cache._by_user.get(u)) for u in cache._by_user) == len(entries)
        assert sum(len(cache._by_owner.get(o)) for o in cache._by_owner) == len(entries)
        assert sum(len(cache._by_session.get(s)) for s in cache._by_session) == len(entries)

    @rule(service=SERVICES, provider=PROVIDERS, user=USERS, secret=SECRETS, place=PLACES)
    def a_fresh_login_is_remembered(self, service: str, provider: int, user: int, secret: bytes, place: str) -> None:
        """The other half: a cache that never hits would pass everything above."""
        self.tick(0.001)
        login = Login(service, provider, user, secret)
        self.flights.append(Flight(login, self.now, self.cache.revision))
        self.accept(len(self.flights) - 1, place, "s1", None, False)
        assert self.cache.get(self.key(login), self.now, place) is not None


CacheAgainstModel.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestCacheAgainstModel = CacheAgainstModel.TestCase
