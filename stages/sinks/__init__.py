"""Sinks of verdicts: results, pictures, annotated video, recording. `stages.record` gives them every verdict."""
