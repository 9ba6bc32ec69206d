"""Simulates Argo CD: renders Applications with real git, kustomize, sops and helm, and syncs the lab's cluster.

It acts as the real controller does where operators rely on it: order of phases and waves, health gates (with the Lua of
argocd-cm), projects, refresh, pruning, self-heal, retries, conditions and the exact words of `status`.
"""
