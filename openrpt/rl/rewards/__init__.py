"""Rewards: the byte-exact prefix match, the terms that `reward.terms` sums, and a user's own."""
