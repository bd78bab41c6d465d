"""The endpoints outside: what is told of runs leaves from here, and nothing else."""
