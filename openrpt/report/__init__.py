"""The HTML report of a run, and the server that follows runs."""
