"""`fluobook lab …`: a lab that outlives the command, its VMs and faults; `fluobook drill`: one that fails."""

from __future__ import annotations

import random
from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fluobook import lab as labs
from fluobook.cli.options import Charts, Engine, Phase, Settings, chosen, engines, root
from fluobook.errors import NotFound, UsageError
from fluobook.redact import Redactor

if TYPE_CHECKING:
    from fluobook.lab import Lab
    from fluobook.params import Params

app = typer.Typer(help="Labs: simulated environments on this machine.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def up(
    phase: Phase = "phase1",
    settings: Settings = [],
    speed: Annotated[
        float | None,
        typer.Option(min=0.01, help="Time scale: simulated seconds per second. 1 is real time; the default is 60."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed of the lab.")] = 1,
    fault: Annotated[
        list[str], typer.Option(metavar="NAME", help="Inject a fault; `fluobook lab faults` lists them.")
    ] = [],
    engine: Engine = None,
    charts: Charts = "",
) -> None:
    """Start a lab in the background. Example: fluobook lab up phase1 --speed 60."""
    provider = labs.provider()
    params = chosen(phase, settings)
    lab = provider.start(
        params,
        provider.folder_of(params.phase),
        root=root(),
        programs=labs.programs(),
        owner=None,
        speed=speed,
        seed=seed,
        faults=fault,
        engines=engines(engine),
        charts=charts,
    )
    print(f"lab of {params.phase} is up, {lab.engine} engine, process {lab.pid}, state in {lab.folder}")
    print("\n".join(lab.remarks))


@app.command()
def down(phase: Phase = "phase1") -> None:
    """Stop a lab. Example: fluobook lab down phase1."""
    provider = labs.provider()
    folder = provider.folder_of(chosen(phase, []).phase)
    if lab := provider.find(folder):
        provider.end(lab, forget=True)
        print(f"lab of {folder.name} is down")
    else:
        print(f"no lab of {folder.name} is up")


@app.command()
def status(phase: Phase = "phase1") -> None:
    """Show whether a lab is up, and what happened in it. Example: fluobook lab status phase1."""
    provider = labs.provider()
    folder = provider.folder_of(chosen(phase, []).phase)
    lab = provider.find(folder)
    if lab is None:
        print(f"no lab of {folder.name} is up")
        raise typer.Exit(1)
    print(f"lab of {folder.name} is up, {lab.engine} engine, process {lab.pid}")
    print("\n".join(lab.remarks))
    for name, address in sorted(lab.overlay.get("endpoints", {}).items()):
        print(f"  {name:<28} {address}")
    activity = provider.activity(lab)
    now, speed = activity["now"], activity["speed"]
    print(f"simulated time {now:.0f} s, time scale {speed:g}; {len(activity['requests'])} requests")
    for stage, steps in activity["critical_path"].items():
        chain = " → ".join(f"{name} {seconds:g} s" for name, seconds in steps)
        print(f"  critical path of {stage}: {chain or 'empty so far'}")


@app.command()
def power(
    phase: Phase,
    state: Annotated[
        Literal["on", "off"], typer.Argument(metavar="on|off", help="off cuts the power, as a host that fails.")
    ],
    nodes: Annotated[list[str], typer.Argument(metavar="NODE...", help="Names of nodes in the params.")],
) -> None:
    """Switch VMs of a lab on or off. Example: fluobook lab power phase3 off talos-cp-2."""
    from fluobook.run.rehearsal import context_in

    params = chosen(phase, [])
    lab = running(params, phase)
    if unknown := sorted(set(nodes) - {node.name for node in params.platform.nodes}):
        known = ", ".join(node.name for node in params.platform.nodes)
        raise UsageError(f"{', '.join(unknown)}: no such node", remedy=f"the nodes of {phase} are {known}")
    with closing(context_in(lab, params, root=root(), redactor=Redactor())) as context:
        for node in [context.platform.node(name) for name in nodes]:
            proxmox = context.proxmox(context.platform.endpoint_of(node).name)
            vm = node.host, node.vmid
            if proxmox.vm_status(*vm)["status"] != ("running" if state == "on" else "stopped"):
                task = (proxmox.start if state == "on" else proxmox.stop)(*vm)
                proxmox.wait(task, deadline=context.platform.deadlines.vm_start)
            print(f"{node.name} is {state}")


@app.command()
def inject(
    phase: Phase,
    names: Annotated[list[str] | None, typer.Argument(metavar="FAULT...", help="None ends all of them.")] = None,
) -> None:
    """Let a lab inject these faults and no others from now on. Example: fluobook lab inject phase1 kube.503."""
    lab = running(chosen(phase, []), phase)
    provider, wanted = labs.provider(), names or []
    if unknown := sorted(set(wanted) - provider.FAULTS.keys()):
        raise UsageError(f"{', '.join(unknown)}: no such fault", remedy="fluobook lab faults")
    provider.inject(lab, wanted)
    print(f"injected from now on: {', '.join(wanted) or 'nothing'}")


def running(params: Params, phase: str) -> Lab:
    """The lab of a phase, which is up; `phase` is how the command line names it.

    Raises:
        NotFound: it is not.
    """
    provider = labs.provider()
    if lab := provider.find(provider.folder_of(params.phase)):
        return lab
    raise NotFound(f"no lab of {params.phase} is up", system="fluobook", remedy=f"fluobook lab up {phase}")


@app.command()
def faults() -> None:
    """List the faults that a lab can inject. Example: fluobook lab faults."""
    for name, meaning in sorted(labs.provider().FAULTS.items()):
        print(f"{name:<34} {meaning}")


DRILL = "drill"
"""The file in a lab's folder that names what is practised."""


def drill(
    code: Annotated[str, typer.Argument(help="A code such as F64; a random one if not given.")] = "",
    listed: Annotated[bool, typer.Option("--list", help="List what can be practised.")] = False,
    repaired: Annotated[
        bool, typer.Option("--repaired", help="Stands for work outside the platform: a host, the network, a server.")
    ] = False,
) -> int:
    """Let the lab fail, to practise finding the cause and the remedy. Example: fluobook drill F64."""
    from fluobook.display.table import Table
    from fluobook.failures import entry

    provider = labs.provider()
    drills, code = provider.DRILLS, code.upper()
    if code and code not in drills:
        raise UsageError(f"{entry(code).code} cannot be practised", remedy="fluobook drill --list")
    if listed:
        rows = [[code, entry(code).title, drill.phase, drill.stage] for code, drill in drills.items()]
        print(Table("drills", ["code", "failure", "phase", "stage"], rows).text())
        return 0
    if repaired:
        _repair(code)
        return 0
    code = code or random.choice(list(drills))
    chosen_drill = drills[code]
    params = chosen(chosen_drill.phase, [])
    folder, faults = provider.folder_of(params.phase), chosen_drill.injected
    lab = provider.find(folder)
    if not lab:
        started = provider.start(params, folder, root=root(), programs=labs.programs(), owner=None, faults=faults)
    provider.inject(lab or started, faults, chosen_drill.settings)
    (folder / DRILL).write_text(code)
    print(f"the lab of {params.phase} fails from now on" + ("; stages that are done stay so" if lab else ""))
    print(f"  run:      fluobook run {params.phase} --approve all; by hand: fluobook open {params.phase}")
    if chosen_drill.settings:
        print(f"  params:   {', '.join(chosen_drill.settings)} in every run, also by hand, until --repaired")
    print(f"  diagnose: read the error; fluobook run {params.phase} --only diagnose")
    print("  remedy:   carry it out; for work outside the platform (host, network, server): fluobook drill --repaired")
    print(f"  then run again: it must finish. fluobook lab down {params.phase} ends the practice")
    return 0


def _repair(code: str) -> None:
    """Carry out what the remedy of the present drill needs outside the platform."""
    provider = labs.provider()
    for folder in {provider.folder_of(drill.phase) for drill in provider.DRILLS.values()}:
        lab, name = provider.find(folder), folder / DRILL
        if lab and name.exists() and code in ("", name.read_text()):
            if outside := provider.DRILLS[name.read_text()].outside:
                provider.inject(lab, [])
                print(f"done: {outside}")
            else:
                print("nothing outside the platform has to be repaired: carry out the remedy on the platform")
            return
    raise NotFound("no drill is under way", system="fluobook", remedy=f"fluobook drill {code}".rstrip())
