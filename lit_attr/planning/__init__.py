"""Planning a harvest from shapes alone: memory, disk and time, before anything is loaded."""
