"""Stage 1, create-vms: the Talos image on every host, and every node's virtual machine made and started.

A VM is ours by SMBIOS uuid and tag, never by its number or name. Whatever else stands in the way stops the stage before
it changes anything. What happens to one VM does not wait for another: create, start and the first answer are a chain of
their own for each.
"""

from fluobook.clients.proxmox.session import WIDTH
from fluobook.stages.core.stage import Stage
from fluobook.stages.create_vms import plan, work

STAGE = Stage(
    1,
    "create-vms",
    "Create the virtual machines on Proxmox VE",
    plan.observe,
    plan.plan,
    work.perform,
    work.verify,
    uses=("proxmox", "talos", "kubernetes", "image factory"),
    widths={"proxmox": WIDTH, "cycle": 1},
)
