"""What a person sees in the terminal: options, progress, tables, messages."""
