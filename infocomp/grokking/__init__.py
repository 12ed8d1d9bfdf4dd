"""When storing turns into generalizing: tasks, models, the date of the transition, and measures of its progress."""
