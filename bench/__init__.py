"""Speed, shown beside a peer and a limit in the same run. `python -m bench --help` lists the measurements."""
