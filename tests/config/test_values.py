"""Text to value and back."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outpost.config import values
from outpost.config.values import Endpoint


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("5m", 300),
        ("1h", 3600),
        ("1h30m", 5400),
        ("250ms", 0.25),
        ("2d", 172800),
        ("0", 0),
        ("1.5s", 1.5),
        ("90", 90),
        (90, 90),
        (0.5, 0.5),
        (" 5M ", 300),
    ],
)
def test_durations(text: object, seconds: float) -> None:
    assert values.duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5x", "-5s", "s", "5 m", -1, True, None, [], float("inf"), float("nan"), "nan"])
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="expected a duration like 30s"):
        values.duration(text)


@given(st.integers(0, 10**7) | st.integers(0, 10**5).map(lambda n: n / 1000))
def test_a_shown_duration_reads_back(seconds: float) -> None:
    assert values.duration(values.show_duration(seconds)) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        ("64KiB", 65536),
        ("64k", 65536),
        ("1MiB", 1048576),
        ("1mb", 1048576),
        ("10", 10),
        (10, 10),
        ("7B", 7),
        ("2G", 2**31),
    ],
)
def test_sizes(text: object, octets: int) -> None:
    assert values.size(text) == octets


@pytest.mark.parametrize("text", ["", "k", "-1", -1, "1.5M", "1TiB", True, None])
def test_what_is_no_size(text: object) -> None:
    with pytest.raises(ValueError, match="expected a size like 64KiB"):
        values.size(text)


@given(st.integers(0, 2**40))
def test_a_shown_size_reads_back(octets: int) -> None:
    assert values.size(values.show_size(octets)) == octets


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:3389", "127.0.0.1", 3389),
        ("[::]:3389", "::", 3389),
        ("[::1]:0", "::1", 0),
        (":1812", "", 1812),
        ("localhost:65535", "localhost", 65535),
    ],
)
def test_addresses(text: str, host: str, port: int) -> None:
    assert values.endpoint(text) == Endpoint(host, port)
    assert str(Endpoint(host, port)) == text


@pytest.mark.parametrize(
    "text", ["3389", "127.0.0.1", "::1:3389", "[::1]", "[127.0.0.1]:1", "h:65536", "h:-1", "h:x", "a:b:1", "[:1"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="is no"):
        values.endpoint(text)


def test_lists_of_addresses() -> None:
    both = (Endpoint("127.0.0.1", 1), Endpoint("::1", 1))
    assert values.endpoints("127.0.0.1:1, [::1]:1") == both
    assert values.endpoints(["127.0.0.1:1", "[::1]:1"]) == both
    assert values.endpoints("") == ()
    assert values.endpoints([]) == ()
    assert values.endpoints("127.0.0.1:0,127.0.0.1:0") == (Endpoint("127.0.0.1", 0),) * 2


@pytest.mark.parametrize("value", ["127.0.0.1:1,", "127.0.0.1:1,127.0.0.1:1", 3389, [3389], {"a": 1}])
def test_what_is_no_list_of_addresses(value: object) -> None:
    with pytest.raises(ValueError, match=r"expected|twice"):
        values.endpoints(value)


def test_networks() -> None:
    assert values.networks("10.0.0.0/8,::1") == (ip_network("10.0.0.0/8"), ip_network("::1/128"))
    assert values.networks("10.1.2.3/8") == (ip_network("10.0.0.0/8"),)
    with pytest.raises(ValueError, match=r"'10.0.0.0/33' is no network"):
        values.networks("10.0.0.0/33")


@pytest.mark.parametrize("word", ["true", "1", "YES", "on", True])
def test_true(word: object) -> None:
    assert values.boolean(word) is True


@pytest.mark.parametrize("word", ["false", "0", "No", "off", "", False])
def test_false(word: object) -> None:
    assert values.boolean(word) is False


@pytest.mark.parametrize("word", ["ture", 1, None])
def test_neither_true_nor_false(word: object) -> None:
    with pytest.raises(ValueError, match="expected true or false"):
        values.boolean(word)


@pytest.mark.parametrize("value", ["-1", "1.0", "x", True, None, "", 1.0, -1])
def test_what_is_no_whole_number(value: object) -> None:
    with pytest.raises(ValueError, match="expected a whole number"):
        values.integer(value)


@pytest.mark.parametrize(("value", "number"), [("1", 1), (2, 2), (" 16 ", 16), ("256", 256)])
def test_numbers_of_workers(value: object, number: int) -> None:
    assert values.workers(value) == number


@pytest.mark.parametrize("word", ["auto", " AUTO "])
@pytest.mark.parametrize(("processors", "number"), [(1, 1), (3, 3), (1000, 256)])
def test_one_worker_for_each_processor(monkeypatch, word: str, processors: int, number: int) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(processors)))
    assert values.workers(word) == number


@pytest.mark.parametrize("value", ["0", "257", "-1", "two", "", "1.5", 0, 257, True, None, 1.0])
def test_what_is_no_number_of_workers(value: object) -> None:
    with pytest.raises(ValueError, match="expected a number of processes from 1 to 256, or auto"):
        values.workers(value)


def test_indirections(tmp_path) -> None:
    secret = tmp_path / "token"
    secret.write_text("from-file\n")
    environ = {"THERE": "from-env", "EMPTY": ""}
    assert values.follow("env://THERE", environ) == "from-env"
    assert values.follow("env://EMPTY?x", environ) == ""
    assert values.follow("env://GONE?fallback", environ) == "fallback"
    assert values.follow("env://GONE?", environ) == ""
    assert values.follow(f"file://{secret}", environ) == "from-file"
    assert values.follow(f"file://{tmp_path}/gone?fallback", environ) == "fallback"
    assert values.follow("https://host?x", environ) == "https://host?x"
    assert values.follow("plain", environ) == "plain"


def test_an_indirection_to_nothing_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="variable GONE is not set"):
        values.follow("env://GONE", {})
    with pytest.raises(ValueError, match="gone: No such file"):
        values.follow(f"file://{tmp_path}/gone", {})
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="not a text file"):
        values.follow(f"file://{tmp_path}/binary", {})
