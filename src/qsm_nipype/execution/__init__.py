"""How a graph is executed: plugins, resources, locks, state files, submission to SLURM."""
