"""Clusters in containers: the library on which `python -m deploy` stands, and which tests use.

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
    """Return one of these names when it is first asked for.

    To load them takes the better part of a second, in which nobody would hear a Ctrl-C yet.
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from deploy import cluster, engine

    return getattr(cluster if name == "Cluster" else engine, name)
