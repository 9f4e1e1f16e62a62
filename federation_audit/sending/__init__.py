"""What leaves the house: shown first, confirmed by a person, sent once, recorded.

`plan` of a channel gives a `Plan`, which says what would be sent where and what would change; a person who has seen it
gives a `Confirmation` of its digest; `dispatching.dispatch` hands both to the channel and records what came of it.
"""
