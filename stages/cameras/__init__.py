"""Live cameras: webcams and network streams, supervised. `Camera` in camera.py is the source of the graph."""
