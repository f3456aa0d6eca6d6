"""WHAT is mixed: adapters, banks, the bank layer, files."""
