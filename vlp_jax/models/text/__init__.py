"""Text towers and the language-model head."""
