"""Events of other systems as sources of frames: Frigate (a video recorder), and pictures in MQTT messages."""
