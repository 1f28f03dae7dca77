"""``python -m segcal_cli``."""

from segcal_cli.cli.entry import main

if __name__ == "__main__":
    main()
