"""The shared training module: a config in, a bank out."""
