"""`mmms export` for those who work in a clone of the repository."""

import sys

from mmms_plugin.commands import script

if __name__ == "__main__":
    sys.exit(script("export"))
