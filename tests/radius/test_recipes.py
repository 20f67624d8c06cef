"""What the recipes for network devices tell people to write."""

import os
import re
import tomllib
from pathlib import Path

import pytest
import yaml

import outpost
from outpost.config import settings
from outpost.identity import RadiusOptions
from outpost.radius.attributes import Renderer
from outpost.radius.bypass import Bypass
from outpost.radius.dictionary import shipped
from outpost.radius.observer import DropReason

PAGES = sorted((Path(outpost.__file__).parent.parent / "docs" / "clients").glob("radius-*.md"))


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def named(page: Path) -> tuple[tuple[str, str], ...]:
    found = [yaml.safe_load(block)["attributes"]["radius"] for block in blocks(page, "yaml")]
    return tuple((name, str(value)) for one in found for name, value in one.items())


def test_the_page_about_radius_names_every_reason_for_silence() -> None:
    page = (PAGES[0].parent.parent / "radius.md").read_text()
    rows = re.findall(r"^\| (`[^|]+) \|", page.partition("| reason |")[2], re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == sorted(DropReason)


def test_there_are_recipes() -> None:
    wanted = "unifi aruba cisco-ios cisco-asa meraki mikrotik fortigate paloalto pfsense openvpn pam-radius"
    assert {page.stem.removeprefix("radius-") for page in PAGES} == set(wanted.split())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_reply_attributes_of_a_recipe_can_be_sent(page: Path) -> None:
    assert Renderer(shipped(), os.urandom).complaints(named(page)) == []
    for number, vendors, name in re.findall(r"packet\[\((\d+), (\d+)\)\].*# (\S+)", page.read_text()):
        attribute = shipped().named(name)
        assert attribute is not None and attribute.vendor is not None, name
        assert (attribute.vendor.number, attribute.sub_number) == (int(number), int(vendors))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_settings_of_a_recipe_are_settings(page: Path, tmp_path: Path) -> None:
    for block in blocks(page, "toml"):
        path = tmp_path / "outpost.toml"
        path.write_text("version = 1\n" + block)
        found = settings.load(path, {"OUTPOST_DIRECTORY": "unused"})
        for name in tomllib.loads(block)["provider"]:
            options = found.extras(name).radius_options(RadiusOptions())
            assert options != RadiusOptions()
            assert Renderer(shipped(), os.urandom).complaints(Bypass(options).attributes.named) == []
