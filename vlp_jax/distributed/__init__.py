"""The processes of one run: start-up, exchange of small values, liveness, shutdown."""
