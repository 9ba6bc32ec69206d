"""The lab's Image Factory."""

from fluobook_lab.factory.server import FactoryLab

__all__ = ["FactoryLab"]
