"""Named failures: what is known to go wrong is recognised by symptom and answered with cause and remedy."""

from fluobook.failures.catalogue import Failure, catalogue
from fluobook.failures.matcher import Diagnosis, diagnose

__all__ = ["Diagnosis", "Failure", "catalogue", "diagnose"]
