"""``python -m paramserver``."""

from paramserver.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
