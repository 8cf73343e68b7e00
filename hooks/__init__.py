"""Cards of the encoders: one YAML file each."""
