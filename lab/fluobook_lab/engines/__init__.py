"""The lab's engine `real`: Kubernetes and Argo CD played by the real programs, as processes on loopback.

Proxmox VE and Talos stay emulated; everything from the machine configuration on is real
(docs/how-to/real-engines.md).
"""
