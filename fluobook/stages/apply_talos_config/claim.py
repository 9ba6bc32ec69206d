"""The claim on a cluster: the VM of the first control plane names the secrets bundle from which the cluster is made.

A machine in maintenance mode takes a configuration from anybody. So two checkouts without a bundle could each make one
and configure some of the nodes. Proxmox VE changes a VM only if its configuration still has the digest that was read,
so of two claims one is written, and the other checkout sends nothing.
"""

from __future__ import annotations

import hashlib
import re

from fluobook.context import RunContext
from fluobook.errors import Conflict, NotFound, Refused
from fluobook.machine.secrets import SecretsBundle

MARK = "fluobook secrets bundle:"
_CLAIM = re.compile(rf"^{MARK} *(\w+) *$", re.MULTILINE)
TRIES = 5
"""How often a claim is written while somebody else keeps changing the VM."""


class Claimed(str):
    """The fingerprint of the bundle that has the claim."""

    __slots__ = ()


def fingerprint(bundle: SecretsBundle) -> str:
    """A public name of a bundle: a hash of the cluster's id, which stays when authorities are rotated."""
    return hashlib.sha256(bundle.cluster_id.encode()).hexdigest()[:16]


def claim_in(description: str) -> str:
    """The fingerprint in the notes of a VM; "" if there is none."""
    match = _CLAIM.search(description)
    return match.group(1) if match else ""


def read(context: RunContext) -> str:
    """The fingerprint of the bundle that has claimed the cluster; "" if none has."""
    return claim_in(str(_config(context).get("description", "")))


def _config(context: RunContext) -> dict[str, object]:
    node = context.platform.control_planes[0]
    try:
        return context.proxmox(context.platform.endpoint_of(node).name).config(node.host, node.vmid)
    except NotFound:
        return {}


def claim(context: RunContext) -> Claimed:
    """Claim the cluster for this checkout's bundle, unless it has the claim already.

    Raises:
        Refused: another bundle has the claim.
        Conflict: somebody else keeps changing the VM.
    """
    node, own = context.platform.control_planes[0], fingerprint(context.secrets.bundle())
    client = context.proxmox(context.platform.endpoint_of(node).name)
    for attempt in range(TRIES):
        config = client.config(node.host, node.vmid)
        notes = str(config.get("description", "")).rstrip("\n")
        if claim_in(notes):
            require(claim_in(notes), own, str(context.secrets.path))
            break
        text = f"{notes}\n{MARK} {own}" if notes else f"{MARK} {own}"
        try:
            client.configure(node.host, node.vmid, {"description": text}, digest=config["digest"])
            break
        except Conflict:
            if attempt == TRIES - 1:
                raise
    return Claimed(own)


def require(claimed: str, own: str, path: str) -> None:
    """Require that a claim is this checkout's.

    Args:
        claimed: the fingerprint that has the claim; "" if none has.
        own: that of this checkout's bundle; "" if it has none.
        path: the bundle's file.

    Raises:
        Refused: another bundle has the claim.
    """
    if claimed and claimed != own:
        raise Refused(
            f"this cluster is made from the secrets bundle {claimed}, "
            + (f"and {path} is {own}" if own else "which is not here"),
            cause="another checkout or another machine has made the bundle; two bundles would be two clusters",
            remedy=f"bring that bundle here as {path} (secrets.bundle in the params), in place of an unused one; "
            f'to begin again, remove the line "{MARK} {claimed}" from the notes of the first control plane\'s VM',
        )
