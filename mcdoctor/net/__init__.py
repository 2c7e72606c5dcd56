"""Wire operations: each ProbeRequest becomes facts. Pure Python, standard library and dnspython: this code travels."""
