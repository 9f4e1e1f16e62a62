"""What numbers can say about an instance, and how sure they are: pure functions, no database, no clock.

`assessment.assess` turns counted exposure and a list of incidents into one frozen result for each instance:

    events        what goes in: exposure, incidents, reviews, remediations, contacts
    rules         every constant, with its source
    exposures     exposure as columns
    strata        how often a model, policy and list flag, and how often wrongly
    triage        stage A: is more flagged than is usual here? (level 1: watch)
    independence  how many confirmed incidents cannot be the work of one account, one raid or one picture
    decision      stage B: e-values and e-BH (levels 2 and 3)
    levels        which level follows, and the sentences that say why and what weakens it
    funnel        control limits for a plot of counts against exposure
    assessment    all of it, at a moment

What it means for an admin: docs/evidence.md. Its error rates: ``python -m bench.audit_statistics``.
"""
