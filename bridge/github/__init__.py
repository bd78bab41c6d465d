"""GitHub, reached by githubkit: the adapters that bridge needs of it."""
