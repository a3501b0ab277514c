"""What every program needs: errors, flags, devices, files, progress."""
