"""Rescans of tier frames: images of the archive, judged again by running scanners while nothing live is in hand.

``jobs`` knows which rescan is to be worked on, ``policies`` by what it judges, ``share`` is this scanner's part of it,
``fronts`` keeps what was judged in the order of the log, ``rescanner`` joins and leaves.
"""
