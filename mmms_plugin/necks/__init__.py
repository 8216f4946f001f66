"""Necks: maps of a backbone, finest first, to maps for a head; host-free."""

from mmms_plugin.necks.dla_up import DLAUp

__all__ = ["DLAUp"]
