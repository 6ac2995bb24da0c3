"""The endpoint `heart_beat`: open to everyone, and it asks nobody."""
