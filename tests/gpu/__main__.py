"""``python tests/gpu``: the check on a GPU, of check.py."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent

if __name__ == "__main__":
    # Python put this folder first. The repository goes last: its sources would hide the installed package.
    sys.path[:] = [path for path in sys.path if Path(path).resolve() != HERE] + [str(HERE.parents[1])]

    from tests.gpu.check import main

    sys.exit(main())
