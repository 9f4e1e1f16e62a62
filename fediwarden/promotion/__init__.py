"""`fediwarden models promote`: other models for a group of scanners, while they judge.

``change`` says which models, ``checking`` whether they may, ``evidence`` what a shadow made of them, ``rollout`` how
far the scanners are, ``examining`` what `fediwarden doctor` says of all that.
"""
