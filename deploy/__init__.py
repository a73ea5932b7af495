"""Clusters in containers: the library on which `python -m deploy` stands, and which tests use.

with Cluster(nodes=3) as cluster:
    cluster.put("n1", "greeting", "hello")
    cluster.kill(cluster.leader())
"""

from deploy.cluster import Cluster
from deploy.engine import DeployError, UsageError

__all__ = ["Cluster", "DeployError", "UsageError"]
