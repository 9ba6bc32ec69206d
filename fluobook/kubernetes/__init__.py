"""Kubernetes semantics as pure functions on plain data, shared by the product and the lab.

Nothing here reads the network or a cluster, so both sides come to the same result for the same input.
"""
