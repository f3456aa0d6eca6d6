"""One module a tab: a `TITLE`, and a `build(page)` that lays it out and wires it."""
