"""The stages: functions from files and a configuration to files."""
