"""The name of `mmms_plugin.size_ap` before 0.1: ``mmms_plugin.analysis.size_ap`` is the same module."""

import sys

from mmms_plugin import size_ap

sys.modules[f"{__name__}.size_ap"] = size_ap
