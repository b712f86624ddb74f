"""What runs: folders in the order in which data passes through them; `pipeline.py` has the whole run on one screen."""
