"""Which adapter stands behind which port, and how the processes start."""
