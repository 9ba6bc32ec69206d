"""The lab's engine `real`: the programs of Kubernetes and Argo CD, as processes on loopback.

Proxmox VE and Talos stay emulated; everything after the machine configuration is real (docs/how-to/real-engines.md).
"""
