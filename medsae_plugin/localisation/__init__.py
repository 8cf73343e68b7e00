"""Where on an image units fire, against regions of findings."""
