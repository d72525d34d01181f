"""Data: readers, columns by name, validation with row numbers.

`read` makes a `Table` of whatever the user has; `check` says what is wrong with it.
"""
