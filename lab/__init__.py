"""Measuring on pictures of one's own: accuracy, operating points; adapting a server to them."""

FEWEST = 20  # pictures; below this a measurement says nothing
