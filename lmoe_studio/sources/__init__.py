"""Where texts come from: files, saved datasets, datasets of the hub, and those given in Python."""
