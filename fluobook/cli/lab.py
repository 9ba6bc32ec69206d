"""`fluobook lab up|down|status|faults`: a lab that outlives the command."""

from __future__ import annotations

from typing import Annotated

import typer

from fluobook import lab as labs
from fluobook.cli.options import Charts, Engine, Phase, Settings, chosen, engines, root

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
def faults() -> None:
    """List the faults that a lab can inject. Example: fluobook lab faults."""
    for name, meaning in sorted(labs.provider().FAULTS.items()):
        print(f"{name:<34} {meaning}")
