"""How many bits of particular texts the weights hold: capacity, unintended memorization, membership, extraction."""
