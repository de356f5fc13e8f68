"""The worker side: local problems, their solves, and the runner that asks, solves and pushes."""
