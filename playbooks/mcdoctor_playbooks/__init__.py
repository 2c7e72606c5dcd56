"""Playbooks: one YAML file a symptom, with its causes, their evidence and what to do, in English and Korean."""
