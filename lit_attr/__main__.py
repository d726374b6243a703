"""`python -m lit_attr`: the same as `lit-attr`."""

import sys

from lit_attr.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
