"""The lab's Image Factory."""

from fluobook.lab.factory.server import FactoryLab

__all__ = ["FactoryLab"]
