"""Stage 8, root-application: the one object with which Argo CD takes over, and the wait until all of it is well.

Done means: every Application Synced and Healthy, at the pushed revision, its last operation Succeeded. Synced and
Healthy alone are true too early: before the first sync of a child, and at the revision before. The wait goes wave by
wave, as Argo CD does, so when one Application is stuck, those after it are not waited for at all.
"""

from fluobook.stages.core.stage import Stage
from fluobook.stages.root_application.observe import observe
from fluobook.stages.root_application.perform import perform
from fluobook.stages.root_application.plan import plan
from fluobook.stages.root_application.verify import verify

STAGE = Stage(
    8, "root-application", "Hand the platform over to Git", observe, plan, perform, verify, uses=("kubernetes",)
)
