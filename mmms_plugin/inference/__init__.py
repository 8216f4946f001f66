"""Models made faster for inference, without a change of their outputs."""

from mmms_plugin.inference.optimize import optimize_for_inference

__all__ = ["optimize_for_inference"]
