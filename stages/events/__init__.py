"""Events of other systems as sources of frames: Frigate, and pictures in MQTT messages."""
