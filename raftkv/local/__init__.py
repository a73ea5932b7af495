"""`raftkv local`: a cluster on this machine, each node a process of its own.

The nodes are started with ordinary settings files, so each can also be restarted alone, by hand. Their supervisor
restarts none by itself: a killed node stays down until the user starts it again, which is how to try what a cluster
does without it. Every node holds a pipe to the supervisor and stops when that ends.
"""
