"""The endpoint `heart_beat`: every client may ask it, and it asks no other service."""
