"""`python -m privjax` is `privjax`."""

import sys

from privjax.cli import main

if __name__ == "__main__":
    sys.exit(main())
