"""What work takes, before it (estimates, plans, limits) and after (FLOPs, energy, money)."""
