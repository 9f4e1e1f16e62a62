"""Judging again what was judged before, when a policy, a hash list or a model has changed.

``jobs`` are the rescans as they stand, ``planning`` turns what is asked into one, ``judging`` judges one verdict again
(from its scores, its hashes or its vectors), and ``working`` does that for a whole rescan; how far it is says
`schemas.rescan_progress`, which the audit's pages ask as well. The `errors` are typed, and name what to do.
"""
