"""Tests of Sagelink; the folders mirror the tree."""

import os

# The tests and the processes that they start use one thread for arithmetic. This comes before numpy and torch load.
os.environ.setdefault("OMP_NUM_THREADS", "1")
