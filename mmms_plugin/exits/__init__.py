"""Networks with several classifiers that stop early and so save time: anytime prediction and budgeted batches.

The two settings of section 3 of the MSDNet paper (``backbones/msdnet.py``). The published code computes everything and
then looks up which exit would have been taken; here nothing after the exit is computed. No host is imported.
"""

from mmms_plugin.exits.network import Answer, EarlyExit
from mmms_plugin.exits.plans import Plan, Plans, choose_plans

__all__ = ["Answer", "EarlyExit", "Plan", "Plans", "choose_plans"]
