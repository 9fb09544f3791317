"""How fast: clock, rounds, statistics, roof and cost."""
