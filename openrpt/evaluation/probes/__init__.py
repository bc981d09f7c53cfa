"""Linear probes on hidden states."""
