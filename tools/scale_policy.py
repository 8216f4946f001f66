"""`mmms scale-policy` for those who work in a clone of the repository."""

import sys

from mmms_plugin.cli import main

if __name__ == "__main__":
    sys.exit(main(["scale-policy", *sys.argv[1:]]))
