"""Files and environment to frozen values: settings, profiles, catalogue; all faults at once."""
