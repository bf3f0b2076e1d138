"""The references of the families are imported by their names alone."""

import sys

from weight_reference import FOLDER

sys.path.insert(0, str(FOLDER))
