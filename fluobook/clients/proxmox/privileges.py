"""Which privileges the runbooks need on which path, what a token lacks of them, and the commands that grant it.

Proxmox VE 9 dropped VM.Monitor and split the guest agent's rights, so the set depends on the version.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fluobook.files import packaged

_NEEDED: dict[str, list[str]] = packaged(__package__, "privileges.yaml")
"""By the first step of a path; `disks` are those of a storage that has disks and no images."""
_AGENT_SPLIT = 9
_PLAIN = "localnetwork"
"""What stands for the zone in the paths of bridges without one."""


@dataclass(frozen=True, order=True)
class Need:
    """One privilege on one path of the access control tree; the same on `instead` will do as well."""

    path: str
    privilege: str
    instead: str = ""


def required(
    major: int,
    *,
    hosts: Iterable[str],
    image_storages: Iterable[str],
    disk_storages: Iterable[str],
    bridge: str,
    vlan: int | None = None,
    zone: str = "",
    pool: str | None = None,
    cpu: str = "",
) -> tuple[Need, ...]:
    """Everything a token needs for all stages, in the order of the paths.

    Args:
        major: the major version of Proxmox VE.
        hosts: the names of the nodes.
        image_storages: where boot images are downloaded to.
        disk_storages: where disks are allocated.
        bridge: the bridge of the VMs.
        vlan: their VLAN tag on it, if any.
        zone: the zone of the SDN that the bridge is a VNet of; it is made with its VNet and the firewall's rules.
        pool: the resource pool of the VMs, if any: Proxmox VE takes the privileges on it for those on its members.
        cpu: their CPU type; who may not audit all nodes may not use an administrator's own model.
    """
    agent = "VM.GuestAgent.Audit" if major >= _AGENT_SPLIT else "VM.Monitor"
    vms = (f"/pool/{pool}", "/vms") if pool else ("/vms",)
    needs = {Need(vms[0], right, *vms[1:]) for right in (*_NEEDED["vms"], agent)}
    needs |= {Need(f"/storage/{name}", right) for name in image_storages for right in _NEEDED["storage"]}
    needs |= {Need(f"/storage/{name}", right) for name in disk_storages for right in _NEEDED["disks"]}
    needs |= {Need(f"/nodes/{name}", right) for name in hosts for right in _NEEDED["nodes"]}
    needs |= {Need("/nodes", "Sys.Audit")} if cpu.startswith("custom-") else set()
    path, used = (bridge_path(bridge, tag, zone or _PLAIN) for tag in (None, vlan))
    needs |= {Need(path, "SDN.Audit"), Need(used, "SDN.Use")}
    made = ("/sdn", "/sdn/fabrics", "/sdn/zones", path) if zone else ()
    needs |= {Need(path, right) for path in made for right in ("SDN.Allocate", "SDN.Audit")}
    needs |= {Need(f"/nodes/{name}", "Sys.Modify") for name in hosts if zone}
    return tuple(sorted(needs))


def bridge_path(bridge: str, vlan: int | None = None, zone: str = _PLAIN) -> str:
    """The path of the rights on a bridge: Proxmox VE 8 and later ask SDN.Use even for plain ones.

    For a network card with a VLAN tag Proxmox VE asks on the tag's path, and not on the bridge's.
    """
    return f"/sdn/zones/{zone}/{bridge}" + (f"/{vlan}" if vlan else "")


def missing(needs: Iterable[Need], permissions: Mapping[str, Mapping[str, int]]) -> tuple[Need, ...]:
    """The needs that a token's effective permissions do not meet.

    Args:
        needs: from `required`.
        permissions: GET /access/permissions: path → privilege → whether it propagates to the paths below.
    """
    return tuple(
        need
        for need in needs
        if not any(_holds(path, need.privilege, permissions) for path in (need.path, need.instead) if path)
    )


def _holds(wanted: str, privilege: str, permissions: Mapping[str, Mapping[str, int]]) -> bool:
    """The nearest path that is listed decides: an entry there replaces what comes from above."""
    for path in _upwards(wanted):
        if path in permissions:
            held = permissions[path].get(privilege)
            return held is not None and (path == wanted or bool(held))
    return False


def _upwards(path: str) -> list[str]:
    parts = path.strip("/").split("/")
    return ["/" + "/".join(parts[:count]) for count in range(len(parts), -1, -1)]


def grant_commands(needs: Iterable[Need], token_id: str, *, among: Iterable[Need] = ()) -> tuple[str, ...]:
    """The commands, to be typed as root on a Proxmox VE host, that grant what is missing; safe to repeat.

    An entry for a path replaces what is inherited from above. So each role holds everything that is needed on its
    path, and the token's user, who may be a person with more rights, gets it only if he lacks what is missing.

    Args:
        needs: what is missing.
        token_id: user@realm!name.
        among: all that is required (`required`); without it what the runbooks usually need on such a path.
    """
    whole = _by_path(among)
    lines: list[str] = []
    for path, lacking in sorted(_by_path(needs).items()):
        usual = set(_NEEDED.get(path.split("/")[1], ()))
        lines += _grant(path, sorted(lacking | whole.get(path, usual)), min(lacking), token_id=token_id)
    return tuple(lines)


def _by_path(needs: Iterable[Need]) -> dict[str, set[str]]:
    by_path: dict[str, set[str]] = {}
    for need in needs:
        by_path.setdefault(need.path, set()).add(need.privilege)
    return by_path


def _grant(path: str, privileges: list[str], lacking: str, *, token_id: str) -> tuple[str, ...]:
    """Make the role, and give it to the token and to its user: a separated token has only what both of them have."""
    user = token_id.rpartition("!")[0]
    role = "-".join(["fluobook", *filter(None, path.split("/"))])
    has = f"pveum user permissions '{user}' --path {path} | grep -qw {lacking}"
    return (
        f"pveum role add {role} 2>/dev/null; pveum role modify {role} --append 1 --privs '{' '.join(privileges)}'",
        f"pveum acl modify {path} --tokens '{token_id}' --roles {role}",
        f"{has} || pveum acl modify {path} --users '{user}' --roles {role}",
    )
