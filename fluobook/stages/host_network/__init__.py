"""Stage 0b, host-network: the WireGuard mesh between the Proxmox VE hosts, and the VXLAN segment of the nodes over it.

Without a mesh in the params there is nothing to do. Each host makes its own key, which never leaves it; its wg-quick
file has the public keys of all others. The zone, VNet and subnet go through Proxmox VE's SDN, always with their MTU.
Pending SDN changes of other people stop the stage, since applying ours would publish them.
"""

from fluobook.stages.core.stage import Stage
from fluobook.stages.host_network import plan

STAGE = Stage(
    0,
    plan.NAME,
    "Join the Proxmox VE hosts by WireGuard and VXLAN",
    plan.observe,
    plan.plan,
    plan.perform,
    plan.verify,
    uses=("proxmox",),
    widths={"rotation": 1},
    suffix="b",
)
