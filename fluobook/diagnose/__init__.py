"""Named failures: what is known to go wrong is recognised by symptom and answered with cause and remedy."""

from fluobook.diagnose.catalogue import Failure, catalogue
from fluobook.diagnose.matcher import Diagnosis, diagnose

__all__ = ["Diagnosis", "Failure", "catalogue", "diagnose"]
