"""The user tower as a service: from a user's ratings or features to an embedding."""
