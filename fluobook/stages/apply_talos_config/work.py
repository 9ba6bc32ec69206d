"""Writes the secrets bundle, and brings configurations to machines in maintenance mode and to configured nodes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from fluobook.clients.talos import MachineIdentity, MaintenanceNode, Mode, maintenance
from fluobook.clients.talos.resources import DISKS
from fluobook.context import RunContext, TalosNodes
from fluobook.errors import FluobookError, ForeignObject, OutsideError, Refused, Rejected, Unreachable
from fluobook.machine import disks
from fluobook.machine.contracts import fold
from fluobook.machine.documents import load
from fluobook.params import Node
from fluobook.stages.apply_talos_config.documents import Configurations
from fluobook.stages.apply_talos_config.plan import Claimed, claim, dry_run, is_not_yet
from fluobook.stages.core.executor import Reporter
from fluobook.stages.core.plan import Action


def perform(context: RunContext, action: Action, report: Reporter) -> Mapping[str, Any] | None:
    """Do one action."""
    if action.id == "secrets bundle":
        context.secrets.create_bundle()
        return {"file": context.secrets.path.name}
    node, talos = context.platform.node(action.data["node"]), context.talos
    text = Configurations.of(context).text(node)
    report.evidence(config_sha256=hashlib.sha256(text.encode()).hexdigest())
    if talos.probe(node).mode is not Mode.CONFIGURED:
        context.shared(Claimed, lambda: claim(context))
        delivery = Delivery(talos, node, text, report)
        planes = {plane.name for plane in context.platform.control_planes}

        def step() -> str | None:
            if planes <= {action.data.get("node") for action in report.failed()}:
                raise Refused(
                    f"{node.name} cannot answer: no control plane runs that would sign its certificate",
                    remedy=f"correct what {', '.join(sorted(planes))} failed at, then run the stage again",
                )
            return delivery.step()

        mode = context.wait_until("install", f"{node.name} to run with its configuration", step, final=FINAL)
        return {"mode": mode}

    def has_taken_over() -> bool | None:
        """Whether the node has come to rest with its configuration, as ready as it was before."""
        applied, _ = dry_run(context, node, text)
        return True if applied.unchanged and talos.is_at_rest(node) and (talos.is_ready(node) or not ready) else None

    ready = talos.is_ready(node)
    applied = context.wait_until(
        "maintenance",
        f"{node.name} to accept its configuration",
        lambda: talos.client(node, "os:admin").apply_configuration(text),
        final=FINAL,
    )
    report.evidence(mode=applied.mode)
    report("takes it over")
    context.wait_until("install", f"{node.name} to run with its configuration", has_taken_over)
    return {"mode": applied.mode}


FINAL = (Rejected,)
TRIES = 3
"""How often a machine gets its configuration: an installation that fails brings it back without one."""


class Delivery:
    """Brings one machine from maintenance mode to running; `step` is called until it has an answer."""

    def __init__(self, talos: TalosNodes, node: Node, text: str, report: Reporter) -> None:
        self._talos, self._node, self._text, self._report = talos, node, text, report
        self._tries = 0
        self._sent = self._mode = ""

    def step(self) -> str | None:
        """Probe the machine, and do the next step.

        Returns:
            How Talos took the configuration ("REBOOT"…) once the node runs with it, else None.

        Raises:
            ForeignObject: it is not our VM, or belongs to another cluster.
            Rejected: it refuses the configuration, or its installation keeps failing.
        """
        probe = self._talos.probe(self._node)
        if probe.mode is Mode.FOREIGN:
            raise ForeignObject(f"{self._node.name}: {probe.detail}", remedy="find out which cluster it belongs to")
        if probe.mode is Mode.MAINTENANCE:
            self._configure(probe.fingerprint)
            return None
        self._report("installs and restarts")
        at_rest = probe.mode is Mode.CONFIGURED and self._talos.is_at_rest(self._node)
        return (self._mode or "unknown") if at_rest else None

    def _configure(self, fingerprint: str) -> None:
        """Send the configuration, unless this very boot of the machine has it: each boot makes a new key."""
        if self._sent == fingerprint:
            return
        if self._tries == TRIES:
            raise Rejected(
                f"{self._node.name} is without a configuration again after {TRIES} installations",
                system="talos",
                cause="the installation fails: its disk is not there, or the installer image cannot be fetched",
                remedy=f"check the console of the VM {self._node.name}, then run the stage again",
            )
        machine = maintenance(self._talos.address(self._node), fingerprint=fingerprint)
        try:
            self._must_be_ours(machine.identity())
            specs = [disk.spec for disk in machine.list(DISKS)]
            if not specs:
                return
            self._must_have_its_disks(specs)
            self._report.evidence(fingerprint=fingerprint)
            self._send(machine)
        finally:
            machine.close()

    def _send(self, machine: MaintenanceNode) -> None:
        try:
            self._mode = machine.apply_configuration(self._text).mode
        except Unreachable:
            # The node may restart before it answers; a later probe shows whether it has the configuration.
            self._mode = "unknown"
        except OutsideError as error:
            if is_not_yet(error):
                raise FluobookError(error.message) from error  # the wait goes on, and names it when it ends
            raise
        self._tries += 1
        self._sent = machine.fingerprint

    def _must_have_its_disks(self, specs: list[disks.Disk]) -> None:
        install = fold(load(self._text))["machine"]["install"]
        if problems := list(disks.mismatches(self._node, install, specs)):
            raise Refused(
                f"the disks of {self._node.name} are not those of the params: {'; '.join(problems)}",
                cause="Talos would be installed on the wrong disk, or not at all; no configuration was sent",
                remedy="correct the sizes in the params, or name the disk for Talos (vm.install_disk)",
            )

    def _must_be_ours(self, identity: MachineIdentity) -> None:
        if differences := identity.differs_from(uuid=self._node.uuid, mac=self._node.mac):
            raise ForeignObject(
                f"the machine at {self._node.address} is not our VM {self._node.name}: {'; '.join(differences)}",
                cause="another machine has this address",
                remedy="give the node another address, or take the other machine off the network; no secret was sent",
            )
