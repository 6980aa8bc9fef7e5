"""The study of a cohort as a script: `python pipelines/cohort_study.py FLAGS`, the same as `medssml study cohort FLAGS`."""

import sys

from medssml.cli import main

sys.exit(main(["study", "cohort", *sys.argv[1:]]))
