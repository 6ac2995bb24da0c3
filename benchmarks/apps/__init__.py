"""The measured applications, a module each, so that a process imports only its own."""
