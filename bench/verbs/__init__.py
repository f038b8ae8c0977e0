"""The verbs of the command line, by what they need: a module is imported when one of its verbs is asked for."""
