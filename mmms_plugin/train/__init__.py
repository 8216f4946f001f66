"""Training, testing and predicting with a config: runner, launch, tasks, hooks.

This file imports nothing: ``mmms configs`` and tab completion answer without torch. ``registry.py`` names the modules
that hold hooks.
"""
