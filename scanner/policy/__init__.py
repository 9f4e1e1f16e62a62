"""Policies: TOML files that turn the scores of frames into accept, review or reject. docs/policies.md is the manual.

``conditions`` say what a rule asks, ``adjustments`` what is changed before, ``judging`` applies both (``compiling``
makes that fast), ``parsing`` reads a file (with ``positions``, so that errors name line and column), ``checks`` and
``reach`` find what can never matter, ``loading`` finds files and the shipped policies, ``tenants`` says which policy is
whose.
"""

from scanner.policy.adjustments import Adjustment, Change
from scanner.policy.conditions import AllOf, AnyOf, AtLeast, CountOf, NoneOf
from scanner.policy.errors import PolicyError
from scanner.policy.judging import Judgement, MediaKind, Policy, Rule, media_kind
from scanner.policy.loading import is_shipped, load_policy, read_policy, shipped_policies
from scanner.policy.parsing import parse_policy
from scanner.policy.tenants import PolicySet, load_policies

__all__ = [
    "Adjustment",
    "AllOf",
    "AnyOf",
    "AtLeast",
    "Change",
    "CountOf",
    "Judgement",
    "MediaKind",
    "NoneOf",
    "Policy",
    "PolicyError",
    "PolicySet",
    "Rule",
    "is_shipped",
    "load_policies",
    "load_policy",
    "media_kind",
    "parse_policy",
    "read_policy",
    "shipped_policies",
]
