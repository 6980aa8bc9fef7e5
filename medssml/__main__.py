"""``python -m medssml VERB ...``."""

import sys

from medssml.cli import main

sys.exit(main())
