"""Live cameras: webcams, network streams and WHIP peers. `Camera` in camera.py is the source of the stage graph."""
