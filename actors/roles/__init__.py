"""The Raft roles: bootstrap, follower, candidate, leader, and what they share."""
