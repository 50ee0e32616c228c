"""`python -m noodle_tui` is `noodle-console`."""

import sys

from noodle_tui.app import main

sys.exit(main())
