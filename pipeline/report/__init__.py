"""`pipeline report`: everything measured on one dataset and backbone, as one HTML page that needs nothing else."""
