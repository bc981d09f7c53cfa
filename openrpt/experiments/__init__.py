"""Short scripts over the stages: `python -m openrpt.experiments.NAME --help`."""
