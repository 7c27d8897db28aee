"""Retrieval as a service: from a user's embedding to the movies nearest to it."""
