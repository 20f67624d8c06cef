import enum
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, Literal, NewType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outpost.errors import DecodeError
from outpost.identity import Secret
from outpost.processes.wire import Wire

Size = NewType("Size", int)


class Colour(enum.Enum):
    RED = "red"


class Weight(enum.Enum):
    HEAVY = 9


@dataclass(frozen=True)
class Inner:
    octets: bytes
    number: float = 0.0


@dataclass(frozen=True)
class Other:
    inner: Inner | None


@dataclass(frozen=True)
class Everything:
    flag: bool
    number: int
    size: Size
    real: float
    text: str
    octets: bytes
    secret: Secret
    path: Path | None
    colour: Colour
    weight: Weight
    word: Literal["a", "b"]
    networks: tuple[IPv4Network | IPv6Network, ...]
    pair: tuple[str, int]
    names: Mapping[str, tuple[Inner, ...]]
    either: Inner | Other


EVERYTHING = Everything(
    flag=True,
    number=-(2**40),
    size=Size(3),
    real=math.inf,
    text='"ünïcode\n',
    octets=bytes(range(256)),
    secret=Secret(bytes(range(256))),
    path=Path("/a/b"),
    colour=Colour.RED,
    weight=Weight.HEAVY,
    word="b",
    networks=(ip_network("10.0.0.0/8"), ip_network("::1")),
    pair=("x", 1),
    names={"n": (Inner(b"\xff", 0.1),)},
    either=Other(None),
)
WIRE: Wire[Everything] = Wire(Everything)
UNION: Wire[Inner | Other] = Wire(Inner | Other)


def test_everything_comes_back() -> None:
    assert WIRE.decode(WIRE.encode(EVERYTHING)) == EVERYTHING
    assert UNION.decode(UNION.encode(Other(Inner(b"x")))) == Other(Inner(b"x"))
    assert UNION.encode(Inner(b"x", 2.5)) == b'["Inner","x",2.5]'


@settings(max_examples=200, deadline=None)
@given(st.binary(), st.floats(allow_nan=False), st.none() | st.builds(Inner, st.binary()))
def test_all_octets_and_numbers_come_back(octets: bytes, number: float, inner: Inner | None) -> None:
    for value in (Inner(octets, number), Other(inner)):
        assert UNION.decode(UNION.encode(value)) == value


LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3)
JSON = st.recursive(
    LEAVES | st.sampled_from(["Inner", "Other"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(st.binary() | JSON.map(lambda found: json.dumps(found).encode()))
def test_noise_is_refused_or_of_the_type(octets: bytes) -> None:
    try:
        found = UNION.decode(octets)
    except DecodeError:
        return
    assert isinstance(found, Inner | Other)
    if isinstance(found, Inner):
        assert type(found.octets) is bytes and type(found.number) is float


def fields(**changed: Any) -> bytes:
    names = list(Everything.__dataclass_fields__)
    found = json.loads(WIRE.encode(EVERYTHING))
    for name, value in changed.items():
        found[names.index(name)] = value
    return json.dumps(found).encode()


@pytest.mark.parametrize(
    "changed",
    [
        {"flag": 1},
        {"flag": None},
        {"number": 1.0},
        {"number": True},
        {"number": "1"},
        {"size": "3"},
        {"real": "nan"},
        {"real": None},
        {"real": True},
        {"text": 1},
        {"octets": "Ā"},
        {"octets": [1]},
        {"secret": "Ā"},
        {"path": 1},
        {"colour": "blue"},
        {"colour": ["red"]},
        {"weight": 8},
        {"weight": True},
        {"word": "c"},
        {"word": []},
        {"networks": "10.0.0.0/8"},
        {"networks": ["10.0.0.1/8"]},
        {"networks": [10]},
        {"pair": ["x"]},
        {"pair": ["x", 1, 2]},
        {"names": []},
        {"names": {"n": [["x"]]}},
        {"either": ["Everything"]},
        {"either": ["Inner"]},
        {"either": []},
        {"either": None},
        {"either": [["Inner"], "x", 1.0]},
    ],
    ids=str,
)
def test_values_of_other_types_are_refused(changed: dict[str, Any]) -> None:
    assert WIRE.decode(fields()) == EVERYTHING
    with pytest.raises(DecodeError) as refused:
        WIRE.decode(fields(**changed))
    assert str(refused.value) == "a value of another type than expected"


def test_what_cannot_travel_is_found_out_at_once() -> None:
    @dataclass
    class Bad:
        anything: object

    for kind in (Bad, Any, dict[str, int], int | str, Inner | None | Other, list[int]):
        with pytest.raises(TypeError):
            Wire(kind)
