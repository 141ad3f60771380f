"""Measuring on pictures of one's own: accuracy, operating points."""

FEWEST = 20  # pictures; below this a measurement says nothing
