"""The stages behind the commands: embed, fit, sweep, encode."""
