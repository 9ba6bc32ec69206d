"""Known failures: an error is recognised by its symptoms and explained with causes, a remedy and the next command."""

from fluobook.failures.catalogue import entry, explain
from fluobook.failures.presentation import Presentation, present

__all__ = ["Presentation", "entry", "explain", "present"]
