"""The expected connections of the tree's pods, compared with what its network policies allow."""

from fluobook.gitops.reach.expected import Cell, matrix

__all__ = ["Cell", "matrix"]
