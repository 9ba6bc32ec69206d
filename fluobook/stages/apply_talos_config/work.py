"""Writes the secrets bundle, and brings configurations to machines in maintenance mode and to configured nodes."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from fluobook.clients.talos import Mode, maintenance
from fluobook.errors import ForeignObject, OutsideError, Rejected, Unreachable
from fluobook.stages.apply_talos_config.plan import NOT_YET, Texts, dry_run, ingredients_of, texts_of
from fluobook.stages.core.cluster import AT_REST

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fluobook.clients.talos import MachineIdentity, MaintenanceNode
    from fluobook.context import RunContext
    from fluobook.params import Node
    from fluobook.stages.core.executor import Reporter
    from fluobook.stages.core.plan import Action


def perform(context: RunContext, action: Action, report: Reporter) -> Mapping[str, Any] | None:
    """Do one action."""
    if action.id == "secrets bundle":
        context.secrets.create_bundle()
        return {"file": context.secrets.path.name}
    node = context.platform.node(action.data["node"])
    text = context.shared(Texts, lambda: texts_of(context, ingredients_of(context)))[node.name]
    report.evidence(config_sha256=hashlib.sha256(text.encode()).hexdigest())
    if context.talos.probe(node).mode is Mode.CONFIGURED:
        return _again(context, node, text, report)
    delivery = Delivery(context, node, text, report)
    what = f"{node.name} runs with its configuration"
    mode = context.wait_until("install", what, delivery.step, final=(Rejected,))
    return {"mode": mode}


def _again(context: RunContext, node: Node, text: str, report: Reporter) -> Mapping[str, Any]:
    """Change the configuration of a configured node; the next node's turn comes when this one is ready again."""
    ready = context.talos.is_ready(node)
    applied = context.wait_until(
        "maintenance",
        f"{node.name} takes its configuration",
        lambda: context.talos.client(node, "os:admin").apply_configuration(text),
        final=(Rejected,),
    )
    report.evidence(mode=applied.mode)
    report("takes it over")
    context.wait_until(
        "install", f"{node.name} runs with its configuration", lambda: _is_itself(context, node, text, ready=ready)
    )
    return {"mode": applied.mode}


def _is_itself(context: RunContext, node: Node, text: str, *, ready: bool) -> bool | None:
    """Whether a node has taken a configuration over, has come to rest, and is as ready as it was before."""
    applied, _ = dry_run(context, node, text)
    stage = context.talos.machine_stage(node)
    at_rest = stage is not None and stage.stage in AT_REST
    return True if applied.unchanged and at_rest and (context.talos.is_ready(node) or not ready) else None


TRIES = 3
"""How often a machine gets its configuration: an installation that fails brings it back without one."""


class Delivery:
    """Brings one machine from maintenance mode to running; `step` is called until it has an answer."""

    def __init__(self, context: RunContext, node: Node, text: str, report: Reporter) -> None:
        self._context, self._node, self._text, self._report = context, node, text, report
        self._tries = 0
        self._sent = self._mode = ""

    def step(self) -> str | None:
        """Look at the machine, and do what is next.

        Returns:
            How Talos took the configuration ("REBOOT"…) once the node runs with it, else None.

        Raises:
            ForeignObject: it is not our VM, or belongs to another cluster.
            Rejected: it refuses the configuration, or its installation keeps failing.
        """
        probe = self._context.talos.probe(self._node)
        if probe.mode is Mode.FOREIGN:
            raise ForeignObject(f"{self._node.name}: {probe.detail}", remedy="find out which cluster it belongs to")
        if probe.mode is Mode.MAINTENANCE:
            self._in_maintenance(probe.fingerprint)
            return None
        self._report("installs and restarts")
        stage = self._context.talos.machine_stage(self._node) if probe.mode is Mode.CONFIGURED else None
        return (self._mode or "unknown") if stage and stage.stage in AT_REST else None

    def _in_maintenance(self, fingerprint: str) -> None:
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
        machine = maintenance(self._context.talos.address(self._node), fingerprint=fingerprint)
        try:
            self._must_be_ours(machine.identity())
            self._report.evidence(fingerprint=fingerprint)
            self._send(machine)
        finally:
            machine.close()

    def _send(self, machine: MaintenanceNode) -> None:
        try:
            self._mode = machine.apply_configuration(self._text).mode
        except Unreachable:
            # The node may restart before it answers; whether it took the configuration shows later.
            self._mode = "unknown"
        except OutsideError as error:
            if error.code in NOT_YET:
                return
            raise
        self._tries += 1
        self._sent = machine.fingerprint

    def _must_be_ours(self, identity: MachineIdentity) -> None:
        if wrong := identity.differs_from(uuid=self._node.uuid, mac=self._node.mac):
            raise ForeignObject(
                f"the machine at {self._node.address} is not our VM {self._node.name}: {'; '.join(wrong)}",
                cause="another machine has this address",
                remedy="give the node another address, or take the other machine off the network; no secret was sent",
            )
