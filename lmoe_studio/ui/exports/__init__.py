"""Exports: what a tab shows as a file, in every format, by one bar of buttons."""
