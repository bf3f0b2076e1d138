"""Workdirs, checkpoints and outputs on this machine or in a bucket (`gs://BUCKET/PATH`,
`s3://BUCKET/PATH`).

Arrays are written by Orbax, which reaches buckets through TensorStore's drivers and commits a
checkpoint by a last object, `commit_success.txt`, as nothing can be renamed there
(`orbax_buckets.py`). Small files are read and written whole by the same drivers (`bucket.py`);
`files.py` has one function for each thing that a run does with its folder, wherever that is. A run
holds its bucket workdir by a lease (`lease.py`). Files that grow are kept on this machine and
uploaded at save points (`spool.py`).
"""
