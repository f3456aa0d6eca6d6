"""Training in the background: a job is a process of its own, a folder and a row."""
