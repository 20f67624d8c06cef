import pytest

from outpost.radius.bypass import hardware_address, without_realm


@pytest.mark.parametrize(
    "text",
    ["00005e005301", "00:00:5E:00:53:01", "00-00-5e-00-53-01", "0000.5e00.5301", "00005e-005301", "00.00.5e.00.53.01"],
)
def test_usual_ways_to_write_an_address(text: str) -> None:
    assert hardware_address(text) == "00005e005301"


@pytest.mark.parametrize("text", ["", "alice", "00005e00530", "00:00-5e:00:53:01", "00005e0053011", "g0005e005301"])
def test_what_is_no_address(text: str) -> None:
    assert hardware_address(text) == ""


@pytest.mark.parametrize(
    ("name", "bare"),
    [
        ("alice", "alice"),
        ("alice@example.org", "alice"),
        ("EXAMPLE\\alice", "alice"),
        ("@example.org", "@example.org"),
        ("EXAMPLE\\", "EXAMPLE\\"),
    ],
)
def test_realms(name: str, bare: str) -> None:
    assert without_realm(name) == bare
