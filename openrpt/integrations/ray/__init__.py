"""Where a stage outgrows one machine: the same on a Ray cluster (docs/ray.md)."""
