"""Names that are no people's: hardware addresses (MAC authentication bypass), probes, realms around names."""

from __future__ import annotations

import re
from typing import Final, final

from outpost._fastradius import Packet
from outpost.identity import RadiusOptions, ReplyAttributes

_HARDWARE_ADDRESS: Final = re.compile(
    r"[0-9a-f]{12}|[0-9a-f]{6}-[0-9a-f]{6}"
    r"|[0-9a-f]{2}(?:([:.-])[0-9a-f]{2})(?:\1[0-9a-f]{2}){4}"
    r"|[0-9a-f]{4}([:.-])[0-9a-f]{4}\2[0-9a-f]{4}",
    re.ASCII | re.IGNORECASE,
)


def hardware_address(text: str) -> str:
    """Twelve lower-case hexadecimal digits for any usual way to write a MAC address; empty for none."""
    if not _HARDWARE_ADDRESS.fullmatch(text):
        return ""
    return re.sub(r"[:.-]", "", text).lower()


def without_realm(username: str) -> str:
    """`alice` for `alice@example.org` and `EXAMPLE\\alice`; what has nothing but a realm stays as it is."""
    bare = username.rpartition("\\")[2] if "\\" in username else username.partition("@")[0]
    return bare or username


@final
class Bypass:
    """The hardware addresses a provider admits, ready to compare."""

    __slots__ = ("addresses", "attributes")

    def __init__(self, options: RadiusOptions) -> None:
        """Raises ValueError for an address or an attribute that is none."""
        self.addresses = frozenset(map(hardware_address, options.mac_addresses))
        if "" in self.addresses:
            wrong = next(text for text in options.mac_addresses if not hardware_address(text))
            raise ValueError(f"mac_addresses: {wrong!r} is no hardware address")
        named = [(name.strip(), value.strip()) for name, _, value in (t.partition("=") for t in options.mac_attributes)]
        if not all(name and value for name, value in named):
            raise ValueError("mac_attributes: expected Name=value each")
        self.attributes = ReplyAttributes(tuple(named))

    @staticmethod
    def concerns(username: str, password: bytes) -> bool:
        """Whether a device asks for itself without saying so: its address is both name and password."""
        address = hardware_address(username)
        return bool(address) and hardware_address(password.decode(errors="replace")) == address

    def admits(self, packet: Packet, username: str) -> bool:
        """Whether the device is on the list, under its name and, if told, its Calling-Station-Id."""
        address = hardware_address(username)
        if not address or address not in self.addresses:
            return False
        calling = hardware_address((packet.calling_station_id or b"").decode(errors="replace"))
        return not calling or calling == address
