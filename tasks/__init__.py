"""One room per stage kind: its Recipe, its Resources, its run()."""
