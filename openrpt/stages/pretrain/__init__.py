"""Plain next-token training, as a trainer and as a control."""
