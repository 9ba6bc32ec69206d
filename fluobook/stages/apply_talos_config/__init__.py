"""Stage 2, apply-talos-config: the secrets bundle once, and every node's machine configuration.

A machine without a configuration takes one from whoever reaches it, and cannot prove who it is. So before a secret is
sent, its SMBIOS uuid, MAC address and disks are compared with those of our VM, and the cluster is claimed for the
bundle. A configured node is asked for a dry run: what it would change is the plan.
"""

from fluobook.stages.apply_talos_config.plan import observe, plan, verify
from fluobook.stages.apply_talos_config.work import perform
from fluobook.stages.core.stage import Stage

STAGE = Stage(
    2,
    "apply-talos-config",
    "Apply the Talos machine configurations",
    observe,
    plan,
    perform,
    verify,
    uses=("talos", "proxmox"),
    widths={"talos": 16, "cycle": 1},
)
