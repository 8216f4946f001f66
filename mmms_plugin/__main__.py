"""``python -m mmms_plugin COMMAND ...`` is ``mmms COMMAND ...``, for launchers that take a module, such as torchrun."""

import sys

from mmms_plugin.commands import script

if __name__ == "__main__":
    sys.exit(script())
