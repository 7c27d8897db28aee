"""The gateway: REST in, gRPC to the user tower and retrieval, JSON out."""
