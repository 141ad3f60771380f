"""Evaluation and learning on your own images and videos: accuracy, frontier calibration, server adaptation."""

MIN_IMAGES = 20  # with fewer images, the confidence intervals are too wide to be useful
