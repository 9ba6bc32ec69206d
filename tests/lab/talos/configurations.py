"""Machine configurations and Talos' verdicts on them (`configurations.yaml`), as texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from fluobook.machine import generate
from fluobook.machine.secrets import new_secrets

FILE = Path(__file__).with_name("configurations.yaml")
CASES: list[dict[str, Any]] = yaml.safe_load(FILE.read_text())
GENERATED = generate("lab", "https://10.0.0.10:6443", "1.35.4", new_secrets(), "/dev/sda")


def merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """A mapping with a change merged into it; lists and scalars are replaced."""
    both = {k: merged(base[k], v) for k, v in change.items() if isinstance(v, dict) and isinstance(base.get(k), dict)}
    return base | change | both


def text_of(case: dict[str, Any]) -> str:
    """The configuration of a case."""
    if "documents" in case:
        documents = case["documents"]
        return yaml.safe_dump_all(documents if isinstance(documents, list) else [documents], sort_keys=False)
    main, *others = GENERATED.of(case.get("role", "controlplane"))
    return yaml.safe_dump_all([merged(main, case["change"]), *others, *case.get("also", ())], sort_keys=False)
