"""``python -m polysense.cli``, where the command itself is not on the path."""

import sys

from polysense.cli.main import main

sys.exit(main())
