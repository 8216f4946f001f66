"""What runs a config: finding it, pointing it at one's own data, checking that all fits, training and testing."""

from mmms_plugin.engine.progress_hook import ProgressHook

__all__ = ["ProgressHook"]
