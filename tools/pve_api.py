"""Writes the parameters of the Proxmox VE requests that the lab serves, from Proxmox VE's own API description.

Usage: python tools/pve_api.py DESCRIPTION

DESCRIPTION is a JSON file: for each path and method the parameters, with type, format, limits and enumeration. Only
these facts are kept, no text. The options of a VM, which creation and change share, are written once.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from fluobook_lab.proxmox.server import ROUTES

FILE = Path(__file__).parents[1] / "lab" / "fluobook_lab" / "proxmox" / "api.json"
CREATE = "POST /nodes/{node}/qemu"
UPDATES = [f"{method} /nodes/{{node}}/qemu/{{vmid}}/config" for method in ("PUT", "POST")]
FACTS = ("type", "optional", "enum", "minimum", "maximum", "minLength", "maxLength", "requires", "alias", "keyAlias")
KIND = "wireguard"
"""The kind of fabric that the lab plays."""
PERL = ("(?^:", "(?:")
DESCRIPTION = {"maxLength": 8192, "optional": 1, "type": "string"}
"""The option `description`, whose name descriptions without text leave out."""


def extract(description: dict[str, Any]) -> dict[str, Any]:
    """The parameters by request ("GET /version"), and those of a VM's options under "options"."""
    served = {f"{method} {path}": description[path][method]["parameters"] for method, path, _ in ROUTES}
    served = {name: parts.get("properties") or _plain(parts) for name, parts in served.items()}
    requests = {name: {key: _facts(value) for key, value in parts.items()} for name, parts in served.items()}
    create, *updates = changing = [requests[name] for name in (CREATE, *UPDATES)]
    for request in changing:
        request["description"] = DESCRIPTION
    options = {
        key: value
        for key, value in create.items()
        if key != "node" and all(update.get(key) == value for update in updates)
    }
    for request in changing:
        for key in options:
            del request[key]
    return {"options": options, "requests": requests}


def _plain(parts: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in parts.items() if isinstance(value, dict)}


def _facts(value: dict[str, Any]) -> dict[str, Any]:
    variants = value.get("oneOf") or [value]
    value = next((variant for variant in variants if KIND in variant.get("instance-types", [KIND])), variants[0])
    kept = {name: value[name] for name in FACTS if value.get(name) is not None}
    if kinds := value.get("instance-types"):
        kept["protocols"] = kinds
    if items := value.get("items"):
        kept["items"] = _facts(items)
    if value.get("default_key"):
        kept["default"] = True
    if pattern := value.get("pattern"):
        kept["pattern"] = pattern.replace(*PERL).replace("(?^i:", "(?i:").replace("{,", "{0,")
    if isinstance(format_ := value.get("format"), dict):
        kept["properties"] = {name: _facts(part) for name, part in format_.items()}
    elif format_:
        kept["format"] = format_
    return kept


if __name__ == "__main__":
    extracted = extract(json.loads(Path(sys.argv[1]).read_text()))
    FILE.write_text(json.dumps(extracted, indent=1, sort_keys=True) + "\n")
