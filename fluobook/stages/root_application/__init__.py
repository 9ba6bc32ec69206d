"""Stage 8, root-application: applies the one Application that deploys all others, and waits until they are healthy.

Done means: every Application is Synced and Healthy, at the pushed revision, and its last operation Succeeded. Synced
and Healthy alone would be reported too early: before the first sync of a child, and for the previous revision. The wait
goes wave by wave, as Argo CD does, so nothing waits for Applications behind one that is stuck.
"""

from fluobook.stages.core.stage import Stage
from fluobook.stages.root_application.work import NAME, observe, perform, plan, verify

STAGE = Stage(
    8, NAME, "Apply the root Application and wait for the platform", observe, plan, perform, verify, ("kubernetes",)
)
