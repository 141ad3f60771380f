"""Sinks: results, pictures, annotated video, recording. `stages.record` hands them every verdict."""
