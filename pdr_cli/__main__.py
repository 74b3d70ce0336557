"""`python -m pdr_cli` is `pdr`."""

# The current folder leaves sys.path before anything is imported that a file there could replace, unless this package lies in it:
# processes that are started import it by the same path.
import os
import sys

if __name__ == "__main__":
    if not sys.flags.safe_path and sys.path[0] != os.path.dirname(os.path.dirname(__file__)):
        del sys.path[0]
    from pdr_cli.process import main

    main()
