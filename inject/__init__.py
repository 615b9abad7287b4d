"""The only bridge to the host: patches on clones of its MODEL, managed weights, schedules, masks."""
