"""``python -m cdrop``."""

import sys

from cdrop.cli import main

if __name__ == "__main__":
    sys.exit(main())
