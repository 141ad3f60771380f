"""Picture sources: video files, image folders and drawn worlds. Live cameras are in stages/cameras."""
