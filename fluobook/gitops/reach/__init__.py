"""Who may reach whom under the tree's policies: a model, the expected answers, and the matrix of both."""

from fluobook.gitops.reach.expected import Cell, matrix
from fluobook.gitops.reach.model import NODES, WORLD, Endpoint, Policies, Verdict

__all__ = ["NODES", "WORLD", "Cell", "Endpoint", "Policies", "Verdict", "matrix"]
