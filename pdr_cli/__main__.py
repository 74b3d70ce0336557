"""`python -m pdr_cli` is `pdr`."""

# The current folder leaves sys.path before anything is imported that a file there could replace.
import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]
    from pdr_cli.process import main

    main()
