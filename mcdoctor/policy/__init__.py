"""Is this traffic allowed, which rule decides, and what is the smallest change that lets it through? Pure code, no I/O."""
