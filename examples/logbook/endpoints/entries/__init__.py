"""`/api/entries`: what was observed, by whom."""

requires = ("cornerstones.auth", "cornerstones.database", "cornerstones.feed")
