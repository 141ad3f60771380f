"""Tests of Sagelink; the folders mirror the tree."""

import os

# The tests and the processes that they start use one thread for arithmetic. Set here, before numpy and torch are loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")
