"""What `weave.py` is made of: lines of ours at named places in the files of a core. Standard library only."""
