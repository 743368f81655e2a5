"""What only a node runs. `python -m skyward.remote.node FOLDER` starts one."""
