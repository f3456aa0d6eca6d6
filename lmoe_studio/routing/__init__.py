"""HOW MUCH of each: routers, plans, losses."""
