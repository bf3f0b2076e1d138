"""Report pages of runs: each section is a function of the runs that returns HTML."""
