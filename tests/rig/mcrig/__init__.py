"""Two Kubernetes clusters on one machine, for the tests: real control planes, real nodes, real packets."""
