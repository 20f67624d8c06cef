"""docs/settings.md knows every key and no other."""

import re
from pathlib import Path

from tests.config import settings_page

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def keys(text: str) -> list[str]:
    return re.findall(r"^(?:## \[.*\]|\| `\w+`)", text, re.M)


def test_the_page_names_every_key() -> None:
    told = PAGE.read_text()
    assert keys(told) == keys(settings_page.text()), "run: python -m tests.config.settings_page > docs/settings.md"
