"""`python -m qsm_nipype` is the command `qsm-nipype`."""

from qsm_nipype.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
