"""A harvest in progress: its plan, who does what, what is committed, which parts count, and their merge."""
