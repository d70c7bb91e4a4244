"""One thin adapter per training framework over the Recorder; each imports its framework, this package none."""
