"""Known failures: an error is recognised by its symptoms and explained with causes, a remedy and the next command."""

from fluobook.failures.catalogue import Failure, Match, catalogue, entry, explain
from fluobook.failures.presentation import Presentation, present

__all__ = ["Failure", "Match", "Presentation", "catalogue", "entry", "explain", "present"]
