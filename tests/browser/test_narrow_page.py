"""Tables on the narrow page of a small JupyterLab."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fluobook.errors import FluobookError
from fluobook.failures import present
from fluobook.stages.core.check import Check, Checks
from fluobook.stages.diagnose import Examined
from fluobook.stages.diagnose import table as findings

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser
BESIDE_THE_FILES = 320
"""Pixels that remain for outputs when JupyterLab is 700 wide."""


def test_findings_and_checks_are_no_wider_than_the_page(chromium: Browser) -> None:
    finding = present(FluobookError(f"etcdserver: leader changed, see https://pve1.example:8006/{'a' * 60}"))
    check = Check("the age key is present", passed=False, result=f"age1{'v0zc3r87' * 8}", remedy="install it")
    shown = [findings([Examined("bootstrap-kubernetes", [finding])]), Checks("preflight", [check]).table()]
    page = chromium.new_page(viewport={"width": BESIDE_THE_FILES, "height": 900})
    page.set_content("".join(table.html() for table in shown))
    page.get_by_text("likely cause").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= BESIDE_THE_FILES
