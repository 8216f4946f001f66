"""Networks with several classifiers that stop early to save time: anytime prediction and budgeted batches.

These are the two settings of section 3 of the MSDNet paper (``backbones/msdnet.py``). The published code computes all
exits and then looks up which one would have been taken; here nothing after the exit is computed. No host is imported.
"""

from mmms_plugin.exits.network import Answer, EarlyExit
from mmms_plugin.exits.plans import Plan, Plans, Promise, choose_plans
from mmms_plugin.exits.risk import certify

__all__ = ["Answer", "EarlyExit", "Plan", "Plans", "Promise", "certify", "choose_plans"]
