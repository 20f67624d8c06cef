"""An option of `make bench-baseline`."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--renew`."""
    parser.addoption("--renew", action="store_true", help="store the ratios instead of comparing with them")
