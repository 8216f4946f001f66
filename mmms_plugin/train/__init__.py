"""What runs a config: finding it, pointing it at one's own data, checking that all fits, training and testing.

This file imports nothing: ``mmms configs`` and tab completion answer without torch. ``registry.py`` names the modules
that hold hooks.
"""
