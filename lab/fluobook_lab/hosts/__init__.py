"""The Proxmox VE hosts of a mesh, as the operator's ssh reaches them: a folder each, in which scripts really run.

`ssh.sh` stands in for ssh and `tool.sh` for the programs on the hosts; both are programs of the shell, since one script
calls a dozen of them.
"""

from __future__ import annotations

import base64
import os
import secrets
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluobook_lab.hosts.keys import public_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fluobook.params import Platform
    from fluobook_lab.clock import Clock
    from fluobook_lab.faults import Faults
    from fluobook_lab.proxmox.model import Tunnel

_PROGRAMS = ("wg", "wg-quick", "ip", "ping", "systemctl", "apt-get")


class Hosts:
    """The hosts of a platform's mesh.

    Args:
        platform: the platform from the params.
        folder: where their folders are made.
        clock: the lab's clock.
        faults: the faults to inject.
    """

    def __init__(self, platform: Platform, folder: Path, clock: Clock, faults: Faults) -> None:
        self._folder, self._clock, self._faults = folder, clock, faults
        self._hosts = list(platform.wireguard.hosts) if platform.wireguard else []
        if not self._hosts:
            return
        for name in ("ssh.sh", "tool.sh"):
            with resources.as_file(resources.files(__package__) / name) as source:
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, folder / name)
            (folder / name).chmod(0o700)
        (folder / "pubkey").write_text(
            f"#!{sys.executable}\n{resources.files(__package__).joinpath('keys.py').read_text()}"
        )
        (folder / "pubkey").chmod(0o700)
        for host in self._hosts:
            home = folder / (host.ssh or host.host)
            (home / "bin").mkdir(parents=True, exist_ok=True)
            (home / "address").write_text(host.endpoint or "")
            (home / "interfaces").write_text("auto vmbr0\niface vmbr0 inet static\n\taddress 192.0.2.1/24\n\n")
            for name in _PROGRAMS:
                (home / "bin" / name).symlink_to("../../tool.sh")
        self.refresh_faults()

    def refresh_faults(self) -> None:
        """Bring the folders in line with the faults."""
        for host in self._hosts:
            program = self._folder / (host.ssh or host.host) / "bin" / "wg-quick"
            program.unlink(missing_ok=True)
            if not self._faults.on("host.tools-missing"):
                program.symlink_to("../../tool.sh")
        for host in self._hosts[:1]:
            for fault, mark in (("host.udp-blocked", "blocked"), ("host.ssh-denied", "denied")):
                path = self._folder / (host.ssh or host.host) / mark
                if self._faults.on(fault):
                    path.touch()
                else:
                    path.unlink(missing_ok=True)

    def overlay(self) -> dict[str, Any]:
        """What replaces parts of the params: the program that reaches the hosts, and private keys from elsewhere."""
        given = []
        for host in (host for host in self._hosts if host.private_key):
            file, key = self._folder / f"{host.host}.key", base64.b64encode(secrets.token_bytes(32)).decode()
            file.write_text(key)
            public = {"public_key": public_key(key)} if host.public_key else {}
            given.append({"host": host.host, "private_key": {"file": str(file)}, **public})
        mesh = {"ssh_program": str(self._folder / "ssh.sh")} | ({"hosts": given} if given else {})
        return {"wireguard": mesh} if self._hosts else {}

    def reload(self, name: str, tunnels: Mapping[str, Tunnel]) -> None:
        """Give a host the WireGuard interfaces of the SDN, as Proxmox VE does if `wg` is installed."""
        homes = [self._folder / (host.ssh or host.host) for host in self._hosts if host.host == name]
        for home in homes if homes and (homes[0] / "bin" / "wg-quick").exists() else ():
            run = home / "run"
            run.mkdir(exist_ok=True)
            for old in set((run / "sdn").read_text().split() if (run / "sdn").exists() else ()) - tunnels.keys():
                (run / f"{old}.conf").unlink(missing_ok=True)
            (run / "sdn").write_text(" ".join(tunnels))
            for interface, tunnel in tunnels.items():
                texts = {"conf": tunnel.configuration, "address": tunnel.address, "mtu": "1420"}
                for suffix, text in texts.items():
                    (run / f"{interface}.{suffix}").write_text(text)

    def handshakes(self, name: str, interface: str) -> dict[str, int] | None:
        """The time of the last handshake of a host's interface with each peer, 0 for none; None if it is down."""
        home = next(self._folder / (host.ssh or host.host) for host in self._hosts if host.host == name)
        command = [str(home / "bin" / "wg"), "show", interface, "latest-handshakes"]
        environment = {**os.environ, "HOST": str(home)}
        shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return None if shown.returncode else {key: int(time) for key, time in map(str.split, shown.stdout.splitlines())}

    def requests(self) -> list[dict[str, Any]]:
        """The scripts that ran so far."""
        log = self._folder / "requests"
        lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
        return [
            {"at": round(self._clock.at(float(at)), 2), "server": f"host {host}"}
            | {"method": "SSH", "path": "sh", "mutating": changed == "1"}
            for at, host, changed in lines
        ]
