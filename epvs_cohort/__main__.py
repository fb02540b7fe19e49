"""``python -m epvs_cohort`` is the command ``epvs-cohort``."""

from epvs_cohort.cli.app import main

if __name__ == "__main__":
    main()
