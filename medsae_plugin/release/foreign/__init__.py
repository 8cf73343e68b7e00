"""SAEs as other libraries save them: what is read of their files, and one module a library."""
