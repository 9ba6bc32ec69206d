from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fluobook.params.reading import read

HERE = Path(__file__).parent


@pytest.fixture
def document() -> dict[str, Any]:
    """The smallest valid params file, as plain data; each test has its own copy."""
    return read(HERE / "valid" / "smallest.yaml")


@pytest.fixture
def two_hosts() -> dict[str, Any]:
    """A small phase 3, as plain data; each test has its own copy."""
    return read(HERE / "valid" / "two-hosts.yaml")
