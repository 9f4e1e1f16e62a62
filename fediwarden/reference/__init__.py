"""The references that docs/ holds, made from the code: every setting (`settings`), every command (`commands`).

``python -m fediwarden.reference`` (`make reference`) writes both anew; tests compare.
"""
