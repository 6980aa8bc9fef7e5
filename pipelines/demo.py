"""The demo as a script: `python pipelines/demo.py [--quick] [--out DIR]`, the same as `medssml demo`."""

import sys

from medssml.cli import main

sys.exit(main(["demo", *sys.argv[1:]]))
