"""A real Ray cluster of nodes on this machine, as small as it gets."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from openrpt.integrations.ray.cluster import ENVIRONMENT


@contextmanager
def ray_nodes(count: int = 2) -> Iterator[str]:
    """Starts nodes of a CPU each, connects this process to them, and gives the head's address."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_log_monitor": False}
    head = small | {"include_dashboard": False, "no_monitor": True}
    nodes = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(count - 1):
            nodes.add_node(**small)
        ray.init(nodes.address, logging_level="ERROR", log_to_driver=False)
        yield nodes.address
    finally:
        ray.shutdown()
        nodes.shutdown()


def workers_named(part: str) -> list[psutil.Process]:
    """The processes of our own nodes whose title has this in it."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if part in " ".join(process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:  # ended meanwhile
            continue
    return found
