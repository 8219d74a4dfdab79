"""`python -m tests.scenarios SCENARIO FOLDER [USER]`; see `tests.executing`."""

import sys

from tests.executing import main
from tests.scenarios import apart, lives

ROOMS = (apart, lives)
"""Imported, they have named their scenarios."""

sys.exit(main())
