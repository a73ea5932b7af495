"""Clusters in containers: the library behind `python -m deploy`, also used by tests.

Each node is a container. All state of a cluster is kept by the Docker Engine, in labels, so any process can go on
with a cluster. What a command created is removed again if the command fails or is interrupted.

    with Cluster(nodes=3) as cluster:
        cluster.put("n1", "greeting", "hello")
        cluster.kill(cluster.leader())
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deploy.cluster import Cluster
    from deploy.engine import DeployError, UsageError

__all__ = ["Cluster", "DeployError", "UsageError"]


def __getattr__(name: str) -> Any:
    """Import one of these names when it is first used.

    The import takes most of a second, during which Ctrl-C would not be handled yet.
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from deploy import cluster, engine

    return getattr(cluster if name == "Cluster" else engine, name)
