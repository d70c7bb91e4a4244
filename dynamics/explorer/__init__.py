"""The explorer: a page on this machine to look around in a run."""
