"""Stage 0b over real WireGuard: three hosts in network namespaces, joined by the files that the stage writes.

Each host has its own /etc/wireguard and /etc/network/interfaces; wg, wg-quick, ip and ping are the real ones, only
systemctl is a stand-in. Without a module in the kernel, wireguard-go runs the tunnels.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fluobook.context import POLICIES
from fluobook.errors import CheckFailed, ParamsError
from fluobook.notebook import stage_run
from fluobook.params import cache_folder
from fluobook.stages import host_network
from fluobook.stages.core.plan import Approval, Gate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fluobook.notebook import StageRun

SOURCES = Path(__file__).with_name("wireguard")
NUMBERS = (1, 2, 3)
WAN = f"fbwan{os.getpid()}"
pytestmark = pytest.mark.timeout(300)
LABS: dict[Path, Any] = {}
"""The lab with the Proxmox VE of the hosts in a folder."""

SYSTEMCTL = """#!/bin/sh
for name in "$@"; do :; done
name=${name#wg-quick@}
case $1 in
  enable) : >/etc/wireguard/.enabled ;;
  is-enabled) test -e /etc/wireguard/.enabled ;;
  restart) wg-quick down "$name" 2>/dev/null; wg-quick up "$name" ;;
esac
"""
USERSPACE = """#!/bin/sh
LOG_LEVEL=error setsid {program} -f "$1" >/dev/null 2>&1 </dev/null &
until [ -S "/var/run/wireguard/$1.sock" ]; do sleep 0.05; done
"""
SSH = """#!/bin/sh
while [ "$1" != -- ]; do shift; done
exec nsenter -t "$(cat {folder}/"$2".pid)" -m -n env PATH="{folder}/bin:$PATH" \\
  WG_QUICK_USERSPACE_IMPLEMENTATION={folder}/bin/userspace sh
"""
HOME = """
mkdir -p {home}/wireguard {home}/network {home}/sockets /var/run/wireguard
[ -d /etc/wireguard ] || mkdir -p /etc/wireguard
[ -d /etc/network ] || mkdir -p /etc/network
: >{home}/network/interfaces
mount --bind {home}/wireguard /etc/wireguard
mount --bind {home}/network /etc/network
mount --bind {home}/sockets /var/run/wireguard
echo $$ >{folder}/root@198.51.100.1{number}.pid
exec sleep 900
"""


def run(*command: str, check: bool = True) -> str:
    """The output of a program."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert not check or done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout + done.stderr


def missing() -> str:
    """Why the tests cannot run here, "" if they can."""
    programs = ("wg", "wg-quick", "ip", "bridge", "ping", "nsenter", "unshare")
    if absent := [name for name in programs if not shutil.which(name)]:
        return f"{', '.join(absent)} not installed"
    if os.geteuid() or subprocess.run(["unshare", "-mn", "true"], capture_output=True, check=False).returncode:
        return "network namespaces cannot be made here"
    if not Path("/dev/net/tun").exists():
        return "there is no /dev/net/tun"
    return "" if shutil.which("wireguard-go") or shutil.which("go") else "neither wireguard-go nor Go is installed"


@pytest.fixture(scope="module")
def userspace() -> str:
    """wireguard-go: the installed one, or built once from the pinned module."""
    if program := shutil.which("wireguard-go"):
        return program
    pins = b"".join(file.read_bytes() for file in sorted(SOURCES.iterdir()))
    program = str(cache_folder() / "engines" / f"wireguard-{hashlib.sha256(pins).hexdigest()[:12]}")
    if not Path(program).exists():
        command = ["go", "build", "-mod=readonly", "-buildvcs=false", "-p", "1", "-o", program]
        environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off"}
        subprocess.run([*command, "golang.zx2c4.com/wireguard"], cwd=SOURCES, env=environment, check=True, timeout=280)
    return program


@pytest.fixture(scope="module")
def folder(userspace: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Three hosts at one switch, each with an address that the params of phase 3 name as its endpoint."""
    folder = tmp_path_factory.mktemp("hosts")
    (folder / "bin").mkdir()
    contents = {"bin/systemctl": SYSTEMCTL, "bin/userspace": USERSPACE.format(program=userspace)}
    contents["ssh"] = SSH.format(folder=folder)
    for name, content in contents.items():
        (folder / name).write_text(content)
        (folder / name).chmod(0o755)
    run("ip", "netns", "add", WAN)
    processes = []
    try:
        run("ip", "-n", WAN, "link", "add", "switch", "type", "bridge")
        run("ip", "-n", WAN, "link", "set", "switch", "up")
        for number in NUMBERS:
            script = HOME.format(home=folder / f"home{number}", folder=folder, number=number)
            processes.append(subprocess.Popen(["unshare", "-mn", "--propagation", "private", "sh", "-ec", script]))
            pid = folder / f"root@198.51.100.1{number}.pid"
            while not (pid.exists() and pid.read_text()):
                assert processes[-1].poll() is None
            cable = f"v{os.getpid() % 100000}x{number}"
            run("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", pid.read_text().strip())
            run("ip", "link", "set", cable, "netns", WAN)
            run("ip", "-n", WAN, "link", "set", cable, "master", "switch", "up")
            for link in ("lo", "eth0"):
                inside(folder, number, "ip", "link", "set", link, "up")
            inside(folder, number, "ip", "address", "add", f"198.51.100.1{number}/24", "dev", "eth0")
        yield folder
    finally:
        for number in NUMBERS:
            sockets = folder / f"home{number}" / "sockets"
            for socket in sockets.glob("*.sock") if sockets.exists() else ():
                inside(folder, number, "ip", "link", "del", socket.stem, check=False)
        for process in processes:
            process.kill()
            process.wait()
        run("ip", "netns", "del", WAN)


def inside(folder: Path, number: int, *command: str, check: bool = True) -> str:
    """Run a program on a host."""
    pid = (folder / f"root@198.51.100.1{number}.pid").read_text().strip()
    return run("nsenter", "-t", pid, "-m", "-n", *command, check=check)


def passes(folder: Path, number: int, address: str, size: int) -> bool:
    """Whether a packet of a size reaches an address from a host unfragmented."""
    words = ["ping", "-q", "-c", "3", "-i", "0.2", "-W", "5", "-M", "do", "-s", str(size - 28), address]
    return " 0% packet loss" in inside(folder, number, *words, check=False)


def is_refused(folder: Path, number: int, address: str, size: int) -> bool:
    """Whether the host itself refuses to send a packet of a size unfragmented."""
    words = ["ping", "-c", "1", "-W", "1", "-M", "do", "-s", str(size - 28), address]
    return "message too long" in inside(folder, number, *words, check=False).lower()


def stage(folder: Path, **changes: Any) -> StageRun:
    """The stage on these hosts, without a VXLAN zone; the Proxmox VE that it asks for its version is the lab's."""
    context = LABS[folder].context(wireguard={"ssh_program": str(folder / "ssh"), "vxlan": None, **changes})
    gate = Gate(Approval.parse("all"), POLICIES["lab"], context.platform.cluster.name)
    return stage_run(host_network.STAGE, context, gate)


@pytest.fixture(scope="module")
def mesh(folder: Path, shared_labs: Callable[..., Any]) -> Path:
    """The hosts, joined by the stage."""
    LABS[folder] = shared_labs(phase="phase3")
    begun = stage(folder)
    begun.apply(begun.plan())
    begun.verify()
    return folder


if reason := missing():
    pytest.skip(f"real WireGuard: {reason}", allow_module_level=True)


def test_the_tunnels_carry_full_packets_between_all_hosts_and_none_that_is_larger(mesh: Path) -> None:
    assert stage(mesh).plan().actions == ()
    for number in NUMBERS:
        for other in set(NUMBERS) - {number}:
            assert passes(mesh, number, f"10.200.0.{other}", 1420)
            assert is_refused(mesh, number, f"10.200.0.{other}", 1421)


def test_vxlan_over_the_tunnels_joins_the_hosts_with_50_bytes_less(mesh: Path) -> None:
    for number in NUMBERS:
        options = ["id", "100", "dstport", "4789", "local", f"10.200.0.{number}"]
        inside(mesh, number, "ip", "link", "add", "vxnodes", "type", "vxlan", *options)
        for other in set(NUMBERS) - {number}:
            entry = ["00:00:00:00:00:00", "dev", "vxnodes", "dst", f"10.200.0.{other}"]
            inside(mesh, number, "bridge", "fdb", "append", *entry)
        inside(mesh, number, "ip", "address", "add", f"10.10.0.{number}/24", "dev", "vxnodes")
        inside(mesh, number, "ip", "link", "set", "vxnodes", "mtu", "1370", "up")
    for number in NUMBERS:
        for other in set(NUMBERS) - {number}:
            assert passes(mesh, number, f"10.10.0.{other}", 1370)
            assert is_refused(mesh, number, f"10.10.0.{other}", 1371)


def test_a_host_that_is_lost_is_named_and_comes_back_by_itself(mesh: Path) -> None:
    inside(mesh, 3, "ip", "link", "set", "eth0", "down")
    with pytest.raises(CheckFailed, match=r"2 of 6; not: pve1 to pve3 \(packets of full size are lost\)"):
        stage(mesh).verify()
    inside(mesh, 3, "ip", "link", "set", "eth0", "up")
    assert any(passes(mesh, 1, "10.200.0.3", 1420) for _ in range(20))
    stage(mesh).verify()


def test_keys_are_replaced_under_traffic_while_the_other_pairs_lose_nothing(mesh: Path) -> None:
    keys = inside(mesh, 1, "wg", "show", "wgfluo", "public-key")
    pid = (mesh / "root@198.51.100.12.pid").read_text().strip()
    ping = ["nsenter", "-t", pid, "-n", "ping", "-D", "-i", "0.1", "-W", "10", "-w", "200", "10.200.0.3"]
    with subprocess.Popen(ping, stdout=subprocess.PIPE, text=True) as traffic:
        rotation = stage(mesh, hosts=[{"host": "pve1", "key": 2}])
        plan = rotation.plan()
        assert [action.id for action in plan.actions] == ["key pve1", "rotate pve1"]
        rotation.apply(plan)
        rotation.verify()
        ended, answers = time.time(), list[tuple[float, int]]()
        for line in traffic.stdout or ():
            if answer := re.search(r"\[([\d.]+)\].*icmp_seq=(\d+) ttl=", line):
                answers.append((float(answer[1]), int(answer[2])))
            if answers and answers[-1][0] > ended:
                traffic.terminate()
                break
    assert inside(mesh, 1, "wg", "show", "wgfluo", "public-key") != keys
    assert answers[-1][0] > ended
    assert [number for _, number in answers] == list(range(1, len(answers) + 1))
    assert passes(mesh, 2, "10.200.0.1", 1420)


def test_wireguard_takes_overlapping_networks_silently_and_the_params_refuse_them(mesh: Path) -> None:
    peers = inside(mesh, 1, "wg", "show", "wgfluo", "peers").split()
    for peer in peers:
        inside(mesh, 1, "wg", "set", "wgfluo", "peer", peer, "allowed-ips", "192.168.0.0/16")
    allowed = inside(mesh, 1, "wg", "show", "wgfluo", "allowed-ips")
    assert allowed.count("192.168.0.0/16") == 1
    overlapping = [{"host": "pve2", "networks": ["192.168.0.0/16"]}, {"host": "pve3", "networks": ["192.168.9.0/24"]}]
    with pytest.raises(ParamsError) as refused:
        stage(mesh, hosts=overlapping)
    assert "overlaps platform.wireguard.hosts.pve2.networks[0] 192.168.0.0/16" in refused.value.problems[0]
