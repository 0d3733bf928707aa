"""``python -m guestlet``: the same program as ``guestlet``."""

from guestlet.cli import main

if __name__ == "__main__":
    main(prog_name="guestlet")
