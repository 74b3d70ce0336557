"""`python -m pdr_cli` is `pdr`."""

from pdr_cli.process import main

if __name__ == "__main__":
    main()
