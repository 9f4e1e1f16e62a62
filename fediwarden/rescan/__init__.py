"""Judging again what was judged before, when a policy, a hash list or a model has changed.

``jobs`` are the rescans as they stand, ``planning`` turns what is asked into one, ``judging`` judges one verdict again
(from its scores, its hashes or its vectors), ``working`` does that for a whole rescan, and ``progress`` tells how far
it is. The `errors` are typed, and name what to do.
"""
