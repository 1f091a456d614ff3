"""Who computes: one process per device, worker processes that tokenize, and the scheduler that hands work out."""
