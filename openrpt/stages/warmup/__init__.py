"""The cold start: traces to imitate, the loss on them, and the stage."""
