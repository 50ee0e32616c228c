"""`python -m noodle_tui` is `noodle-console`."""

import gc
import sys


def main() -> int:
    """The console. Until its first paint nothing becomes garbage, so the collector waits; `app` lets it work again."""
    gc.disable()
    try:
        from noodle_tui.app import main as run
    except ModuleNotFoundError as missing:  # an install that is to compute only has no Textual
        from engine.program import explained

        told = explained(missing)
        print(f"noodle-console: {told}", file=sys.stderr)
        return told.exit_code
    return run()


if __name__ == "__main__":
    sys.exit(main())
