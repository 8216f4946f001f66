"""Segmentation quality by region size: IoU and recall of the connected regions of the ground truth.

Needs NumPy and OpenCV, for the report also matplotlib and jinja2; neither torch nor a host.
"""
