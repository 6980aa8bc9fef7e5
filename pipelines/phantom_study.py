"""The study on simulated cohorts as a script: `python pipelines/phantom_study.py FLAGS`, as `medssml study phantom FLAGS`."""

import sys

from medssml.cli import main

sys.exit(main(["study", "phantom", *sys.argv[1:]]))
