"""What happened: traces, how they are recorded, and their files."""
