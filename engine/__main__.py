"""`python -m engine` is `noodle-engine`."""

import sys

from engine.cli import main

sys.exit(main())
