"""`python -m medsae_plugin` is `medsae`."""

import sys

from medsae_plugin.cli import main

if __name__ == "__main__":
    sys.exit(main())
