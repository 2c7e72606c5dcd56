"""The command line. `wiring` alone joins adapters and ports; commands import what they need when they run."""
