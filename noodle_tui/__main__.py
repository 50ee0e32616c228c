"""`python -m noodle_tui` is `noodle-console`."""

import gc
import sys


def main() -> int:
    """The console. Until its first paint nothing becomes garbage, so the collector waits; `app` lets it work again."""
    gc.disable()
    from noodle_tui.app import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
