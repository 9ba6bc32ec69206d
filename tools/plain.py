"""Stage 1 as a plain script would do it: proxmoxer and a pool of threads, without looking first, without a journal.

It knows nothing of what can go wrong, so it shows what is possible at a given width; the benchmark holds stage 1 to it.
"""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Semaphore
from typing import TYPE_CHECKING, Any

import urllib3
from proxmoxer import ProxmoxAPI

from fluobook.machine.schematic import image_of
from fluobook.stages.create_vms.settings import create_params

if TYPE_CHECKING:
    from fluobook.context import RunContext
    from fluobook.params import Node

POLL = 0.2
"""Seconds between two looks at a task."""


def bring_up(context: RunContext, width: int) -> None:
    """Make and start every virtual machine and wait until each answers, `width` of them at work at once."""
    text = (context.root / "talos" / "schematic.yaml").read_text()
    image = image_of(text, context.platform.versions.talos)
    context.factory.schematic(text)
    for endpoint in context.platform.proxmox:
        for host in endpoint.hosts:
            storage = _api(context, endpoint).nodes(host).storage(endpoint.image_storage)
            task = storage("download-url").post(content="iso", filename=image.filename, url=image.url)
            _wait(_api(context, endpoint), host, task)
    places, nodes = Semaphore(width), context.platform.nodes
    with ThreadPoolExecutor(len(nodes)) as pool:
        list(pool.map(lambda node: _machine(context, node, image.filename, places), nodes))


def _machine(context: RunContext, node: Node, file: str, places: Semaphore) -> None:
    with places:
        api = _api(context, context.platform.endpoint_of(node))
        qemu = api.nodes(node.host).qemu
        _wait(api, node.host, qemu.post(vmid=node.vmid, **create_params(context.platform, node, file)))
        _wait(api, node.host, qemu(node.vmid).status.start.post())
    while not _answers(context, node):
        time.sleep(POLL)


def _wait(api: Any, host: str, task: str) -> None:
    while api.nodes(host).tasks(task).status.get()["status"] == "running":
        time.sleep(POLL)


def _answers(context: RunContext, node: Node) -> bool:
    try:
        socket.create_connection(context.platform.route(node.address, 50000), timeout=2).close()
    except OSError:
        return False
    return True


def _api(context: RunContext, endpoint: Any) -> Any:
    host, port = context.platform.route(endpoint.host, endpoint.port)
    user, _, name = endpoint.token_id.partition("!")
    secret = endpoint.token_secret.resolve(context.root, lambda _: {})
    # The lab's certificate is for the name that the params give, not for the loopback address it is reached at.
    urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    return ProxmoxAPI(host, port=port, user=user, token_name=name, token_value=secret, verify_ssl=False)
