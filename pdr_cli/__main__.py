"""`python -m pdr_cli` is `pdr`."""

from pdr_cli.app import main

if __name__ == "__main__":
    main()
