"""Picture sources: video files, image folders and synthetic scenes. Live cameras are in stages/cameras."""
