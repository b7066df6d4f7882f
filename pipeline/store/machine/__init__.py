"""Collection `workers` and who may be in it: document form, queries, enrolment, answered challenges."""
