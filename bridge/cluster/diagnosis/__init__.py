"""What `bridgectl doctor` looks at through the API server. It reads, and asks who may do what; it changes nothing.

Each check is a method that yields findings, and is on its own: what it may not look at leaves it as Forbidden,
and no answer as Unavailable; the caller says so and goes on with the next.
"""
