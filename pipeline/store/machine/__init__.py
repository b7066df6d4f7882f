"""Collection `workers` and who may be in it: document form, queries, counts, enrolment, answered challenges."""
