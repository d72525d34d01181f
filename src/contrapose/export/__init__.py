"""What leaves a run: model folders that other libraries load, and vectors."""
